/// A loaded dense graph with its self-attention cache, on some graph engine.
///
/// One sequence at a time; a new one starts at position 0 without clearing anything.
public protocol DenseGraph: AnyObject {
  /// The most new tokens of one run.
  var chunk: Int { get }

  /// Computes the logits after the last of some new tokens.
  ///
  /// - Parameters:
  ///   - tokenIDs: the new tokens, 1 to `chunk` of them.
  ///   - position: of the first; `position + tokenIDs.count` is at most the context.
  ///   - window: with the new tokens' rows appended; nil without experts.
  /// - Returns: one logit for each id of the vocabulary, valid until the next run.
  func run(_ tokenIDs: ArraySlice<TokenID>, position: Int, window: ExpertWindow?) throws
    -> UnsafeBufferPointer<Float>
}
