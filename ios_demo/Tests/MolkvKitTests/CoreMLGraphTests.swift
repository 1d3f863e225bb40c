import CMolkv
import CoreML
import MolkvTesting
import XCTest

@testable import MolkvKit

/// The Core ML engine on real packages, evaluated op by op in place of Core ML.
final class CoreMLGraphTests: XCTestCase {
  /// Bundles with a package: float16 rows, int8 rows, int4 rows, MoLE, no experts, and rows that
  /// carry the input embedding.
  private static let bundles = [
    "molkv-f16", "molkv-int8", "molkv-int4", "mole-int8", "dense", "stored-embedding",
  ]

  private func withModels(
    _ name: String, _ body: (MolkvBundle, EvaluatedModels) async throws -> Void
  ) async throws {
    let bundle = try MolkvBundle(folder: Fixtures.folder("coreml").appendingPathComponent(name))
    let models = try EvaluatedModels(package: bundle.file("dense.mlpackage"))
    MLModel.host = models
    defer { MLModel.host = nil }
    try await body(bundle, models)
  }

  private func withGraph(
    _ name: String, _ body: (MolkvBundle, CoreMLGraph, EvaluatedModels) async throws -> Void
  ) async throws {
    try await withModels(name) { bundle, models in
      try await body(
        bundle, CoreMLGraph(bundle, compiled: bundle.file("dense.mlpackage")), models)
    }
  }

  private func sequence(_ bundle: MolkvBundle, _ graph: CoreMLGraph, chunk: Int = 128) throws
    -> TokenSequence
  {
    try TokenSequence(
      model: bundle.manifest.model, graph: graph, blob: bundle.openExperts(), chunk: chunk)
  }

  private func logits(_ sequence: TokenSequence, _ ids: [TokenID]) throws -> [Float] {
    var prefill = try sequence.beginPrefill(ids)
    while true {
      let logits = try sequence.run(&prefill)
      if prefill.isDone { return Array(logits) }
    }
  }

  private func assertClose(
    _ ours: [Float], _ theirs: [Float], _ tolerance: Double, _ what: String
  ) {
    let worst = zip(ours, theirs).map { Double(abs($0 - $1)) }.max() ?? .infinity
    XCTAssertEqual(ours.count, theirs.count, what)
    XCTAssertLessThanOrEqual(worst, tolerance, what)
  }

  func testWhatTheEngineFeedsIsWhatThePackageDescribes() async throws {
    for name in Self.bundles {
      try await withModels(name) { bundle, models in
        let feeds = try CoreMLFeeds(bundle.manifest)
        for function in CoreMLFeeds.Function.allCases {
          let found = try models.describe(bundle.folder, function: function.rawValue)
          XCTAssertEqual(
            Self.sorted(feeds.inputs(function)), Self.arrays(found.inputDescriptionsByName), name)
          XCTAssertEqual(
            Self.sorted(feeds.outputs(function)), Self.arrays(found.outputDescriptionsByName), name)
          let states = found.stateDescriptionsByName.values.map {
            CoreMLFeeds.Feed(
              name: $0.name, shape: $0.stateConstraint!.bufferShape,
              type: $0.stateConstraint!.dataType)
          }
          XCTAssertEqual(Self.sorted(feeds.states()), Self.sorted(states), name)
        }
      }
    }
  }

  private static func sorted(_ feeds: [CoreMLFeeds.Feed]) -> [CoreMLFeeds.Feed] {
    feeds.sorted { $0.name < $1.name }
  }

  private static func arrays(_ found: [String: MLFeatureDescription]) -> [CoreMLFeeds.Feed] {
    sorted(
      found.values.map {
        CoreMLFeeds.Feed(
          name: $0.name, shape: $0.multiArrayConstraint!.shape.map(\.intValue),
          type: $0.multiArrayConstraint!.dataType)
      })
  }

  func testLogitsAreTheRecordedOnesWithinFloat16() async throws {
    for name in Self.bundles {
      try await withGraph(name) { bundle, graph, _ in
        for recorded in try bundle.loadGolden().cases.prefix(2) {
          let ours = try logits(sequence(bundle, graph), recorded.promptIDs)
          let tolerance = ParityLadder.float16Factor * recorded.logitsTolerance
          for (id, value) in zip(recorded.logits.tokenIDs, recorded.logits.values) {
            XCTAssertEqual(Double(ours[Int(id)]), value, accuracy: tolerance, name)
          }
        }
      }
    }
  }

  func testChunksOfEverySizeGiveTheSameLogitsAlsoAtTheEndOfTheContext() async throws {
    for name in ["molkv-int8", "stored-embedding"] {
      try await withGraph(name) { bundle, graph, models in
        let context = bundle.manifest.model.context
        let ids = (0..<context).map { TokenID(($0 * 7 + 3) % 300) }
        let tolerance =
          ParityLadder.float16Factor * (try bundle.loadGolden().cases[0].logitsTolerance)
        let single = try logits(sequence(bundle, graph, chunk: 1), ids)
        XCTAssertTrue(models.calls.allSatisfy { $0.function == "decode" })
        for chunk in [5, graph.chunk] {
          let whole = try sequence(bundle, graph, chunk: chunk)
          assertClose(try logits(whole, ids), single, tolerance, "chunk \(chunk)")
          XCTAssertEqual(whole.position, context)
        }
        XCTAssertTrue(models.calls.contains { $0.function == "prefill" })
        for call in models.calls where call.function == "prefill" {
          let position = call.inputs["position"]!.withUnsafeBufferPointer(ofType: Int32.self) {
            $0[0]
          }
          XCTAssertLessThanOrEqual(
            Int(position) + graph.chunk, bundle.manifest.backends["coreml"]!.limits!.cacheTokens)
        }
      }
    }
  }

  func testANewTextAfterALongerOneGivesTheSameLogits() async throws {
    try await withGraph("molkv-f16") { bundle, graph, _ in
      let ids: [TokenID] = Array(10..<31)
      let before = try logits(sequence(bundle, graph), ids)
      _ = try logits(sequence(bundle, graph), Array(40..<90))
      let after = try logits(sequence(bundle, graph), ids)
      XCTAssertEqual(before, after)
    }
  }

  func testFloat16RowsAreHandedOverWhereTheWindowKeepsThem() async throws {
    try await withGraph("molkv-f16") { bundle, graph, models in
      let blob = try XCTUnwrap(bundle.openExperts())
      let window = try ExpertWindow(
        geometry: blob.geometry, window: bundle.manifest.model.expertWindow, chunk: graph.chunk)
      try Prefetch([5, 6, 7], from: blob).append(count: 3, to: window)
      let plane = try window.plane(MOLKV_VALUES, layer: 0)
      _ = try graph.run(NewTokens(ids: [7], embeddings: nil), position: 2, window: window)
      let call = try XCTUnwrap(models.calls.last)
      XCTAssertEqual(call.function, "decode")
      let input = try XCTUnwrap(call.inputs["expert_values_0"])
      XCTAssertEqual(input.shape.map(\.intValue)[0], 1)
      let row = plane.data! + 2 * plane.rowBytes
      input.withUnsafeBytes { XCTAssertEqual($0.baseAddress, UnsafeRawPointer(row)) }
    }
  }

  func testEmbeddingsAreThoseOfTheRowsAndHandedOverWhereTheCoreWroteThem() async throws {
    try await withGraph("stored-embedding") { bundle, graph, models in
      let blob = try XCTUnwrap(bundle.openExperts())
      let window = try ExpertWindow(
        geometry: blob.geometry, window: bundle.manifest.model.expertWindow, chunk: graph.chunk)
      let embeddings = try XCTUnwrap(InputEmbeddings(of: blob, tokens: graph.chunk))
      let ids: [TokenID] = [9, 8, 9]
      try Prefetch(ids[...], from: blob).append(count: 3, to: window, embeddings: embeddings)
      let tokens = NewTokens(ids: ids[...], embeddings: embeddings.numbers.baseAddress)
      _ = try graph.run(tokens, position: 0, window: window)
      let call = try XCTUnwrap(models.calls.last)
      XCTAssertNil(call.inputs["input_ids"])
      let input = try XCTUnwrap(call.inputs["embeddings"])
      let size = bundle.manifest.model.hiddenSize
      XCTAssertEqual(input.shape.map(\.intValue), [1, graph.chunk, size])
      // Halves at the row's end, before its checksum.
      let expected = try ids.flatMap { id in
        try blob.row(of: id)[..<(blob.rowSize - 4)].suffix(2 * size).withUnsafeBytes {
          $0.bindMemory(to: Float16.self).map { Float($0) }
        }
      }
      input.withUnsafeBufferPointer(ofType: Float.self) {
        XCTAssertEqual($0.baseAddress, UnsafePointer(embeddings.numbers.baseAddress))
        XCTAssertEqual(Array($0.prefix(expected.count)), expected)
      }
      XCTAssertThrowsError(
        try graph.run(NewTokens(ids: [9], embeddings: nil), position: 3, window: window)
      ) { XCTAssertEqual(($0 as? MolkvError)?.kind, .usage) }
    }
  }

  func testQuantizedRowsAreScaleTimesNumberRoundedOnce() async throws {
    for name in ["molkv-int8", "molkv-int4"] {
      try await withGraph(name) { bundle, graph, models in
        let blob = try XCTUnwrap(bundle.openExperts())
        let window = try ExpertWindow(geometry: blob.geometry, window: 4, chunk: graph.chunk)
        try Prefetch([9, 8], from: blob).append(count: 2, to: window)
        _ = try graph.run(NewTokens(ids: [9, 8], embeddings: nil), position: 0, window: window)
        let input = try XCTUnwrap(models.calls.last?.inputs["expert_keys_1"])
        var expected: [Float16] = []
        try window.dequantize(.keys, layer: 1, rows: 0..<2) { expected.append(Float16($1)) }
        let ours = input.withUnsafeBufferPointer(ofType: Float16.self) {
          Array($0.prefix(expected.count))
        }
        XCTAssertEqual(ours, expected)
        XCTAssertTrue(ours.contains { $0 != 0 })
      }
    }
  }

  func testTheSessionClimbsTheFloat16Ladder() async throws {
    try await withGraph("molkv-int8") { bundle, graph, _ in
      let ladder = ParityLadder(
        model: bundle.manifest.model, backend: try bundle.manifest.backend("coreml"),
        golden: try bundle.loadGolden(), graph: graph, blob: try bundle.openExperts(),
        tokenizer: nil, chunk: 128)
      var rungs: [ParityRung] = []
      try ladder.climb { rungs.append($0) }
      XCTAssertEqual(rungs.last?.name, "6 greedy tokens: below the best logit")
      for rung in rungs { XCTAssertEqual(rung.passed, true, "\(rung)") }
    }
  }

  func testPackagesAreCompiledOnceAndLoadedFromTheCache() async throws {
    try await Fixtures.temporaryFolder { folder in
      try await withModels("dense") { bundle, _ in
        let models = CompiledModels(folder: folder.appendingPathComponent("compiled"))
        let first = try await models.model(of: bundle)
        let second = try await models.model(of: bundle)
        XCTAssertEqual(first.path, second.path)
        XCTAssertEqual(
          try FileManager.default.contentsOfDirectory(atPath: models.folder.path).count, 1)
        _ = try await CoreMLGraph.load(bundle, models: models)
      }
    }
  }

  func testPackagesThatAreNotTheManifestsAreRefused() async throws {
    for (name, other, words) in [
      ("molkv-int8", "other-checkpoint", "identity is "),
      ("molkv-int8", "dense", "is "), ("dense", "molkv-int8", "is "),
    ] {
      try await withModels(name) { bundle, _ in
        let package = Fixtures.folder("coreml").appendingPathComponent("\(other)/dense.mlpackage")
        MLModel.host = try EvaluatedModels(package: package)
        XCTAssertThrowsError(try CoreMLGraph(bundle, compiled: package)) {
          let error = $0 as? MolkvError
          XCTAssertEqual(error?.kind, .bundle)
          XCTAssertTrue("\($0)".contains(words) && "\($0)".contains("the manifest says"), "\($0)")
        }
      }
    }
  }

  func testAPackageWhoseEmbeddingIsElsewhereIsRefused() async throws {
    for (name, found, words) in [
      ("molkv-int8", "storage", "embedding is storage, the manifest says missing"),
      ("stored-embedding", nil, "embedding is missing, the manifest says storage"),
    ] as [(String, String?, String)] {
      try await withModels(name) { bundle, models in
        let manifest = bundle.manifest
        let real = try models.describe(bundle.folder, function: "decode")
        var facts = try XCTUnwrap(real.metadata[.creatorDefinedKey] as? [String: String])
        XCTAssertNoThrow(try manifest.checkFacts(facts, backend: "coreml", file: "package"))
        facts["molkv.embedding"] = found
        XCTAssertThrowsError(try manifest.checkFacts(facts, backend: "coreml", file: "package")) {
          XCTAssertTrue("\($0)".contains(words), "\($0)")
        }
      }
    }
  }

  func testFeedsThatThePackageLacksAreNamed() async throws {
    try await withModels("molkv-int8") { bundle, models in
      let feeds = try CoreMLFeeds(bundle.manifest)
      let real = try models.describe(bundle.folder, function: "decode")
      func changed(
        drop: String? = nil, add: MLFeatureDescription? = nil, state: String? = nil
      ) -> MLModelDescription {
        let inputs = real.inputDescriptionsByName.values.filter { $0.name != drop }
        let states = real.stateDescriptionsByName.values.filter { $0.name != state }
        return MLModelDescription(
          inputs: inputs + [add].compactMap { $0 },
          outputs: Array(real.outputDescriptionsByName.values), states: states, creatorDefined: [:])
      }
      let wrong = MLFeatureDescription(
        name: "position",
        multiArrayConstraint: MLMultiArrayConstraint(shape: [2], dataType: .int32))
      let unknown = MLFeatureDescription(
        name: "embedding",
        multiArrayConstraint: MLMultiArrayConstraint(shape: [1, 64], dataType: .float16))
      for (description, words) in [
        (changed(drop: "expert_keys_1"), "input of decode expert_keys_1 is missing"),
        (changed(drop: "position", add: wrong), "input of decode position is int32 [2]"),
        (changed(add: unknown), "input of decode embedding is unknown"),
        (changed(state: "key_cache_0"), "state key_cache_0 of decode is missing"),
      ] {
        XCTAssertThrowsError(try feeds.check(description, function: .decode, file: "package")) {
          XCTAssertTrue("\($0)".contains(words), "\($0)")
        }
      }
      XCTAssertNoThrow(try feeds.check(changed(), function: .decode, file: "package"))
    }
  }
}
