import CoreML

/// What a Core ML graph must take, give and keep for a manifest (docs/ios.md, "Functions, inputs,
/// states").
struct CoreMLFeeds {
  /// The functions of the package, which share weights and states.
  enum Function: String, CaseIterable {
    case prefill, decode
  }

  struct Feed: Equatable {
    let name: String
    let shape: [Int]
    let type: MLMultiArrayDataType
  }

  let model: Manifest.Model
  let limits: Manifest.Limits
  /// Whether rows carry the input embedding, and the graph takes it instead of token ids.
  let takesEmbeddings: Bool

  /// - Throws: `MolkvError.Kind.bundle` if the manifest has no Core ML graph, or not its limits.
  init(_ manifest: Manifest) throws {
    model = manifest.model
    takesEmbeddings = manifest.embeddingPrecision != nil
    guard let limits = try manifest.backend("coreml").limits else {
      throw MolkvError(
        .bundle, "\(Manifest.fileName): backends.coreml.limits is missing", fix: "export again")
    }
    self.limits = limits
    let sizes = [
      ("chunk", limits.chunk), ("context", limits.context), ("cache_tokens", limits.cacheTokens),
    ]
    for (name, size) in sizes where size < 1 || size > 1 << 24 {
      throw MolkvError(
        .bundle, "\(Manifest.fileName): backends.coreml.limits.\(name) is \(size)",
        fix: "export again")
    }
  }

  /// Tokens of one call.
  func tokens(_ function: Function) -> Int { function == .prefill ? limits.chunk : 1 }

  func inputs(_ function: Function) -> [Feed] {
    let tokens = tokens(function)
    var feeds = [
      takesEmbeddings
        ? Feed(name: "embeddings", shape: [1, tokens, model.hiddenSize], type: .float32)
        : Feed(name: "input_ids", shape: [1, tokens], type: .int32),
      Feed(name: "position", shape: [1], type: .int32),
    ]
    if function == .prefill {
      feeds.append(Feed(name: "logits_index", shape: [1], type: .int32))
    }
    for layer in 0..<model.layers {
      for vectors in expertVectors {
        let shape = [tokens, model.experts, size(of: vectors)]
        feeds.append(Feed(name: name(vectors, layer), shape: shape, type: .float16))
      }
    }
    return feeds
  }

  func outputs(_: Function) -> [Feed] {
    [Feed(name: "logits", shape: [1, 1, model.vocabularySize], type: .float32)]
  }

  /// The last two dimensions are padded.
  func states() -> [Feed] {
    let head = padded(model.hiddenSize / model.attentionHeads)
    let slots = padded(model.expertWindow) * model.experts
    return (0..<model.layers).flatMap { layer in
      var feeds = ["key", "value"].map {
        Feed(
          name: "\($0)_cache_\(layer)", shape: [model.keyValueHeads, limits.cacheTokens, head],
          type: .float16)
      }
      if model.architecture == .molkv {
        let heads = model.expertQueryHeads
        let sizes = [("key", model.expertKeySize), ("value", model.hiddenSize / heads)]
        feeds += sizes.map {
          Feed(
            name: "\($0.0)_window_\(layer)", shape: [heads, slots, padded($0.1)], type: .float16)
        }
      }
      return feeds
    }
  }

  /// What a row of the blob brings: MoLE has no keys, a dense model nothing.
  var expertVectors: [ExpertVectors] {
    switch model.architecture {
    case .dense: []
    case .mole: [.values]
    case .molkv: [.keys, .values]
    }
  }

  /// Elements of one expert's vector.
  func size(of vectors: ExpertVectors) -> Int {
    vectors == .keys ? model.expertQueryHeads * model.expertKeySize : model.hiddenSize
  }

  func name(_ vectors: ExpertVectors, _ layer: Int) -> String {
    "expert_\(vectors == .keys ? "keys" : "values")_\(layer)"
  }

  /// The Neural Engine wants multiples of 32.
  private func padded(_ size: Int) -> Int { (size + 31) / 32 * 32 }
}
