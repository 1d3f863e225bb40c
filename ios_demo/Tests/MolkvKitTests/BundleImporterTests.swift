import MolkvTesting
import XCTest

@testable import MolkvKit

/// Bundles are copied whole and checked, or not at all.
final class BundleImporterTests: XCTestCase {
  private func copy(_ source: URL, to library: BundleLibrary) async throws -> [BundleImporter
    .Progress]
  {
    var all: [BundleImporter.Progress] = []
    for try await progress in BundleImporter(into: library).importBundle(from: source) {
      all.append(progress)
    }
    return all
  }

  private func names(_ library: BundleLibrary) throws -> [String] {
    guard FileManager.default.fileExists(atPath: library.folder.path) else { return [] }
    return try FileManager.default.contentsOfDirectory(atPath: library.folder.path).sorted()
  }

  func testABundleIsCopiedWithEveryFileOfAFolderedGraph() async throws {
    try await Fixtures.temporaryFolder { folder in
      let library = BundleLibrary(folder: folder.appendingPathComponent("library"))
      let source = Fixtures.folder("coreml").appendingPathComponent("molkv-int8")
      let progress = try await copy(source, to: library)
      let last = try XCTUnwrap(progress.last)
      XCTAssertEqual(last.done, last.total)
      XCTAssertEqual(progress.map(\.done), progress.map(\.done).sorted())
      let bundle = try MolkvBundle(folder: XCTUnwrap(last.folder))
      try bundle.verifyExperts()
      XCTAssertEqual(bundle.manifest.totalBytes, last.total)
      XCTAssertEqual(try names(library), ["molkv-int8"])
      XCTAssertEqual(try library.bundles().map(\.lastPathComponent), ["molkv-int8"])
    }
  }

  func testWhatIsRefusedLeavesNothing() async throws {
    try await Fixtures.temporaryFolder { folder in
      let library = BundleLibrary(folder: folder)
      for (name, words) in [
        ("row-byte-flipped", "experts.molkv: sha256 is"), ("dense-onnx-truncated", "bytes"),
        ("dense-onnx-data-missing", "missing"), ("manifest-future", "schema_version is 2"),
        ("manifest-name-upwards", "is not a bare name"), ("golden-json-byte-flipped", "sha256 is"),
      ] {
        do {
          _ = try await copy(Fixtures.attacks.appendingPathComponent(name), to: library)
          XCTFail("\(name) was imported")
        } catch let error as MolkvError {
          XCTAssertTrue(error.problem.contains(words), "\(error)")
        }
        XCTAssertEqual(try names(library), [], name)
      }
    }
  }

  func testABundleOfTheSameNameStays() async throws {
    try await Fixtures.temporaryFolder { folder in
      let library = BundleLibrary(folder: folder)
      _ = try await copy(Fixtures.small, to: library)
      do {
        _ = try await copy(Fixtures.small, to: library)
        XCTFail("the first was overwritten")
      } catch let error as MolkvError {
        XCTAssertEqual(error.kind, .usage)
      }
      XCTAssertEqual(try names(library), ["small"])
      _ = try MolkvBundle(folder: folder.appendingPathComponent("small"))
    }
  }

  func testCancellingRemovesWhatWasCopied() async throws {
    try await Fixtures.temporaryFolder { folder in
      let library = BundleLibrary(folder: folder)
      let task = Task {
        try BundleImporter(into: library).copy(Fixtures.tiny) { progress in
          if progress.done > 1 << 20 { withUnsafeCurrentTask { $0?.cancel() } }
        }
      }
      let result = await task.result
      XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError) }
      XCTAssertEqual(try names(library), [])
    }
  }

  func testCopiesThatACrashLeftAreRemoved() async throws {
    try await Fixtures.temporaryFolder { folder in
      let library = BundleLibrary(folder: folder)
      let left = folder.appendingPathComponent(".partial-0-crashed")
      try FileManager.default.createDirectory(at: left, withIntermediateDirectories: true)
      XCTAssertEqual(try library.bundles(), [])
      XCTAssertEqual(try names(library), [])
    }
  }

  func testABundleThatDoesNotFitTheStorageIsRefusedBeforeAnythingIsWritten() async throws {
    try await Fixtures.temporaryFolder { folder in
      let library = BundleLibrary(folder: folder)
      XCTAssertThrowsError(try library.checkRoom(for: 1 << 60)) {
        XCTAssertEqual(($0 as? MolkvError)?.kind, .storage)
        XCTAssertTrue("\($0)".contains("are free"))
      }
      try library.checkRoom(for: 1)
    }
  }

  func testNamesThatLeadElsewhereAreRefused() {
    let library = BundleLibrary(folder: URL(fileURLWithPath: "/nowhere"))
    for name in ["", ".", "..", ".hidden", "a/b"] {
      XCTAssertThrowsError(try library.folder(named: name))
    }
  }
}
