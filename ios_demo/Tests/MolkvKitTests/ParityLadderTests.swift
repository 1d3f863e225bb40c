import MolkvTesting
import XCTest

@testable import MolkvKit

/// A graph whose logits say which tokens are in its cache. It may forget those of single steps.
private final class CacheTellingGraph: DenseGraph {
  let chunk = 128
  private let keepsSteps: Bool
  private var cache: [TokenID]
  private let logits: UnsafeMutableBufferPointer<Float>

  init(_ model: Manifest.Model, keepsSteps: Bool) {
    self.keepsSteps = keepsSteps
    cache = [TokenID](repeating: 0, count: model.context)
    logits = .allocate(capacity: model.vocabularySize)
  }

  deinit { logits.deallocate() }

  func run(_ tokens: NewTokens, position: Int, window: ExpertWindow?) throws
    -> UnsafeBufferPointer<Float>
  {
    let seen = cache[..<position] + tokens.ids
    let told = seen.enumerated().reduce(0) { ($0 + ($1.offset + 1) * Int($1.element)) % 9973 }
    for id in logits.indices { logits[id] = Float((told + id) % 97) }
    if keepsSteps || tokens.ids.count > 1 {
      cache.replaceSubrange(position..<position + tokens.ids.count, with: tokens.ids)
    }
    return UnsafeBufferPointer(logits)
  }
}

final class ParityLadderTests: XCTestCase {
  /// What an earlier run of the same ids left in the cache must not stand in for a step's own write.
  func testAGraphThatForgetsItsStepsFallsOffRung4() throws {
    let bundle = try MolkvBundle(folder: Fixtures.folder("coreml").appendingPathComponent("dense"))
    let model = bundle.manifest.model
    for keepsSteps in [true, false] {
      let ladder = ParityLadder(
        model: model, backend: try bundle.manifest.backend("coreml"),
        golden: try bundle.loadGolden(), graph: CacheTellingGraph(model, keepsSteps: keepsSteps),
        blob: nil, tokenizer: nil, chunk: 128)
      var rungs: [ParityRung] = []
      try ladder.climb { rungs.append($0) }
      let chunks = try XCTUnwrap(rungs.first { $0.name == "4 prefill in chunks" })
      XCTAssertEqual(chunks.passed, keepsSteps, "\(chunks)")
    }
  }
}
