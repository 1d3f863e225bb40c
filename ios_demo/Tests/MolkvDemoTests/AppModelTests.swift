import MolkvKit
import MolkvTesting
import XCTest

@testable import MolkvDemo

/// Choosing, importing and deleting bundles.
@MainActor
final class AppModelTests: XCTestCase {
  private func withModel(
    builtIn: URL? = Fixtures.small, _ body: @MainActor (AppModel, URL) async throws -> Void
  ) async throws {
    try await Fixtures.temporaryFolder { folder in
      let library = BundleLibrary(folder: folder.appendingPathComponent("bundles"))
      let model = AppModel(library: library, builtIn: builtIn) { bundle in
        try Fixtures.session(bundle.folder)
      }
      try await body(model, folder)
    }
  }

  func testTheBuiltInBundleIsOpenedFirst() async throws {
    try await withModel { model, _ in
      XCTAssertNil(model.session)
      await model.start()
      XCTAssertEqual(model.choices.map(\.name), ["Built in"])
      XCTAssertNotNil(model.session)
      XCTAssertEqual(model.chosen?.isBuiltIn, true)
      await model.delete(model.choices[0])
      XCTAssertEqual(model.choices.count, 1)
    }
  }

  func testWithoutAnyBundleTheAppIsEmpty() async throws {
    try await withModel(builtIn: nil) { model, _ in
      await model.start()
      XCTAssertNil(model.chosen)
      XCTAssertNil(model.alert)
    }
  }

  func testAnImportedBundleIsOpenedAndCanBeDeleted() async throws {
    try await withModel { model, _ in
      await model.start()
      await model.importBundle(from: Fixtures.small)
      XCTAssertNil(model.alert)
      XCTAssertNil(model.importProgress)
      XCTAssertEqual(model.choices.map(\.name), ["Built in", "small"])
      XCTAssertEqual(model.chosen?.name, "small")
      XCTAssertNotNil(model.session)
      // A second time would lose the first.
      await model.importBundle(from: Fixtures.small)
      XCTAssertEqual(model.alert?.contains("a bundle of this name is there"), true)
      await model.delete(try XCTUnwrap(model.chosen))
      XCTAssertEqual(model.choices.map(\.name), ["Built in"])
      XCTAssertEqual(model.chosen?.name, "Built in")
      XCTAssertNotNil(model.session)
    }
  }

  func testADamagedBundleIsNotImported() async throws {
    try await withModel(builtIn: nil) { model, folder in
      await model.importBundle(from: Fixtures.attacks.appendingPathComponent("row-byte-flipped"))
      XCTAssertEqual(model.alert?.contains("experts.molkv: sha256 is"), true)
      XCTAssertEqual(model.choices, [])
      let left = try FileManager.default.contentsOfDirectory(
        atPath: folder.appendingPathComponent("bundles").path)
      XCTAssertEqual(left, [])
    }
  }

  func testABundleThatCannotBeUsedSaysWhyAndTheOthersStillWork() async throws {
    let broken = Fixtures.attacks.appendingPathComponent("graph-of-another-checkpoint")
    try await withModel(builtIn: broken) { model, _ in
      await model.start()
      guard case .failed(_, let problem) = model.phase else { return XCTFail("\(model.phase)") }
      XCTAssertTrue(problem.contains("dense.onnx: identity is 5a5a"))
      XCTAssertTrue(problem.contains("one export"))
      await model.importBundle(from: Fixtures.small)
      XCTAssertNotNil(model.session)
    }
  }

  func testEveryScreenIsBuiltInEveryPhase() async throws {
    try await withModel { model, _ in
      _ = ContentView(app: model).body
      let screens = {
        let prompt = PromptModel(settings: SamplingSettings())
        _ = PromptScreen(app: model, model: prompt).body
        _ = BundlesScreen(app: model).body
        _ = BenchmarkScreen(app: model, model: BenchmarkModel()).body
        _ = ParityScreen(app: model, model: ParityModel()).body
        _ = SamplingScreen(settings: prompt.settings).body
      }
      screens()
      await model.start()
      screens()
    }
  }
}
