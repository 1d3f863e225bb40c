/// The new tokens of a step. Where rows carry the input embedding, the graph takes it and not the id.
public struct NewTokens {
  public let ids: ArraySlice<TokenID>
  /// float32 [ids.count, d] in memory for `chunk` tokens, whose rest is anything finite; nil: the
  /// graph has the embedding.
  public let embeddings: UnsafeMutablePointer<Float>?
}

/// A loaded dense graph with its self-attention cache, on some graph engine.
///
/// One sequence at a time; a new one starts at position 0 without clearing anything.
public protocol DenseGraph: AnyObject {
  /// The most new tokens of one run.
  var chunk: Int { get }

  /// Computes the logits after the last of some new tokens.
  ///
  /// - Parameters:
  ///   - tokens: 1 to `chunk` of them.
  ///   - position: of the first; that of the last is below the context.
  ///   - window: with the new tokens' rows appended; nil without experts.
  /// - Returns: one logit for each id of the vocabulary, valid until the next run.
  func run(_ tokens: NewTokens, position: Int, window: ExpertWindow?) throws
    -> UnsafeBufferPointer<Float>
}
