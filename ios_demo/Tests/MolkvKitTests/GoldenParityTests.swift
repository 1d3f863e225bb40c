import MolkvOnnx
import MolkvTesting
import XCTest

@testable import MolkvKit

/// This runtime computes what the exporter recorded of the trained model, and of one whose rows carry
/// the input embedding.
final class GoldenParityTests: XCTestCase {
  private static let bundles = [Fixtures.tiny, Fixtures.stored]

  private func request(_ ids: [TokenID], _ count: Int, _ sampling: Sampling) -> GenerationRequest {
    GenerationRequest(prompt: .tokenIDs(ids), maxNewTokens: count, sampling: sampling, stopIDs: [])
  }

  func testEveryGreedyTokenAndItsTextAreTheRecordedOnes() async throws {
    for folder in Self.bundles {
      let session = try Fixtures.session(folder)
      let cases = try session.bundle.loadGolden().cases
      XCTAssertTrue(cases.contains { $0.greedy.count == 64 })
      for recorded in cases {
        let count = recorded.greedy.count
        let result = try await generated(session, request(recorded.promptIDs, count, .greedy))
        XCTAssertEqual(result.ids, recorded.greedy, recorded.name)
        XCTAssertEqual(result.text, recorded.greedyText, recorded.name)
      }
    }
  }

  func testEverySeededTokenIsTheRecordedOne() async throws {
    for folder in Self.bundles {
      let session = try Fixtures.session(folder)
      for recorded in try session.bundle.loadGolden().cases {
        let sampled = recorded.sampled
        let result = try await generated(
          session, request(recorded.promptIDs, sampled.tokenIDs.count, sampled.sampling))
        XCTAssertEqual(result.ids, sampled.tokenIDs, recorded.name)
      }
    }
  }

  func testAllRungsOfTheLadderPass() async throws {
    for folder in Self.bundles {
      let session = try Fixtures.session(folder)
      var rungs: [ParityRung] = []
      for try await rung in session.checkParity() { rungs.append(rung) }
      XCTAssertEqual(
        rungs.map(\.name),
        [
          "1 row bytes: golden = reader", "2 dequantized rows: golden = reader",
          "4 prefill in chunks", "5 logits: recorded", "6 tokenizer", "6 greedy tokens",
          "6 sampled tokens",
        ])
      for rung in rungs { XCTAssertEqual(rung.passed, true, "\(rung)") }
    }
  }

  func testTheFunctionInsideTheFileGivesTheSameTokens() async throws {
    for folder in Self.bundles {
      let session = try Fixtures.session(folder, stock: true)
      let recorded = try XCTUnwrap(session.bundle.loadGolden().cases.first)
      let result = try await generated(session, request(recorded.promptIDs, 16, .greedy))
      XCTAssertEqual(result.ids, Array(recorded.greedy.prefix(16)))
    }
  }

  func testAGraphTakesEmbeddingsWhereRowsCarryThemAndOnlyThere() throws {
    for (folder, precision) in zip(Self.bundles, [nil, .f16] as [Manifest.EmbeddingPrecision?]) {
      let bundle = try MolkvBundle(folder: folder)
      XCTAssertEqual(bundle.manifest.embeddingPrecision, precision)
      let blob = try XCTUnwrap(bundle.openExperts())
      let window = try ExpertWindow(geometry: blob.geometry, window: 1, chunk: 1)
      let row = try blob.row(of: 5)
      try window.append(row: row)
      var embedding = [Float](repeating: 0, count: bundle.manifest.model.hiddenSize)
      let graph = try OnnxGraph(bundle)
      try embedding.withUnsafeMutableBufferPointer {
        let wrong = precision == nil ? $0.baseAddress : nil
        XCTAssertThrowsError(
          try graph.run(NewTokens(ids: [5], embeddings: wrong), position: 0, window: window)
        ) {
          XCTAssertEqual(($0 as? MolkvError)?.kind, .usage)
          XCTAssertTrue("\($0)".contains("embeddings are needed where rows carry them"), "\($0)")
        }
      }
    }
  }

  func testAWrongGoldenFileFailsTheRungsThatItTouches() async throws {
    try await Fixtures.temporaryFolder { folder in
      let copy = folder.appendingPathComponent("bundle")
      try FileManager.default.copyItem(at: Fixtures.small, to: copy)
      let session = try Fixtures.session(copy)
      let file = copy.appendingPathComponent("golden.json")
      var golden = try XCTUnwrap(
        JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
      var cases = try XCTUnwrap(golden["cases"] as? [[String: Any]])
      var rows = try XCTUnwrap(golden["rows"] as? [[String: Any]])
      let place = try XCTUnwrap(cases.firstIndex { ($0["greedy"] as? [Int])?.isEmpty == false })
      var greedy = try XCTUnwrap(cases[place]["greedy"] as? [Int])
      greedy[0] = (greedy[0] + 1) % session.bundle.manifest.model.vocabularySize
      cases[place]["greedy"] = greedy
      rows[0]["bytes_sha256"] = String(repeating: "0", count: 64)
      golden["cases"] = cases
      golden["rows"] = rows
      try JSONSerialization.data(withJSONObject: golden).write(to: file)
      var failed: [String] = []
      for try await rung in session.checkParity() where rung.passed == false {
        failed.append(rung.name)
      }
      XCTAssertEqual(failed, ["1 row bytes: golden = reader", "6 greedy tokens"])
    }
  }
}
