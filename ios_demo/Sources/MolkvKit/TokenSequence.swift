import CMolkv

/// One sequence running through a bundle: blob to window to graph, rows read by token id as it goes.
final class TokenSequence {
  let model: Manifest.Model
  /// The most tokens that prefill runs at once.
  let chunk: Int
  /// Tokens that the sequence has.
  private(set) var position = 0
  private let graph: any DenseGraph
  private let blob: ExpertBlob?
  private let window: ExpertWindow?
  private let embeddings: InputEmbeddings?
  private var row: [UInt8] = []  // of a single step
  private var counted = SessionStatistics()
  private var readsBefore: ExpertBlob.Reads?

  init(model: Manifest.Model, graph: any DenseGraph, blob: ExpertBlob?, chunk: Int) throws {
    self.model = model
    self.graph = graph
    self.blob = blob
    self.chunk = min(chunk, model.context, graph.chunk)
    guard self.chunk > 0 else {
      throw MolkvError(.usage, "chunk is \(self.chunk)", fix: "use at least 1")
    }
    if let blob {
      window = try ExpertWindow(
        geometry: blob.geometry, window: model.expertWindow, chunk: self.chunk)
      // The graph's own chunk: where its shapes are fixed, it reads as much.
      embeddings = InputEmbeddings(of: blob, tokens: graph.chunk)
      row = [UInt8](repeating: 0, count: blob.rowStride)
    } else {
      window = nil
      embeddings = nil
    }
    restart()
  }

  var statistics: SessionStatistics {
    var statistics = counted
    if let reads = blob?.reads, let before = readsBefore {
      statistics.rowsRead = reads.rows - before.rows
      statistics.bytesRead = reads.bytes - before.bytes
    }
    return statistics
  }

  /// Starts a new sequence, and its statistics.
  func restart() {
    // The self-attention cache needs no clearing: only positions before the current one are read.
    position = 0
    window?.reset()
    counted = SessionStatistics()
    counted.windowBytes = window?.bytes ?? 0
    readsBefore = blob?.reads
  }

  func setTimeToFirstToken(_ seconds: Double) { counted.timeToFirstToken = seconds }

  /// A prompt that is being appended, chunk by chunk.
  struct Prefill {
    fileprivate let tokenIDs: [TokenID]
    fileprivate var next = 0
    fileprivate var rows: Prefetch?

    /// Whether all tokens are appended.
    var isDone: Bool { next == tokenIDs.count }
  }

  /// Checks a prompt and starts to read its first rows.
  func beginPrefill(_ tokenIDs: [TokenID]) throws -> Prefill {
    try check(tokenIDs)
    var prefill = Prefill(tokenIDs: tokenIDs)
    prefill.rows = try startRows(of: nextChunk(prefill))
    return prefill
  }

  /// Appends the prompt's next chunk; while the graph runs it, the rows of the one after are read.
  ///
  /// - Returns: the logits after it, valid until the next call.
  func run(_ prefill: inout Prefill) throws -> UnsafeBufferPointer<Float> {
    let ids = nextChunk(prefill)
    return try timed(\.prefillSeconds) {
      if let window, let rows = prefill.rows {
        try timed(\.lookupSeconds) {
          try rows.append(count: ids.count, to: window, embeddings: embeddings)
        }
      }
      prefill.next += ids.count
      prefill.rows = prefill.isDone ? nil : try startRows(of: nextChunk(prefill))
      let logits = try graph.run(newTokens(ids), position: position, window: window)
      position += ids.count
      counted.prefillTokens += ids.count
      return logits
    }
  }

  /// Appends one token: one row is read, one position computed.
  ///
  /// - Returns: the logits after it, valid until the next call.
  func step(_ tokenID: TokenID) throws -> UnsafeBufferPointer<Float> {
    try check([tokenID])
    return try timed(\.decodeSeconds) {
      if let blob, let window {
        try timed(\.lookupSeconds) {
          try blob.read(tokenID, into: &row)
          try window.append(row: row)
          try embeddings?.read(row: row)
        }
      }
      let logits = try timed(\.decodeEngineSeconds) {
        try graph.run(newTokens([tokenID]), position: position, window: window)
      }
      position += 1
      counted.decodeTokens += 1
      return logits
    }
  }

  /// Runs a body and adds the time that it took to a figure.
  private func timed<Result>(
    _ figure: WritableKeyPath<SessionStatistics, Double>, _ body: () throws -> Result
  ) rethrows -> Result {
    let began = ContinuousClock.now
    defer { counted[keyPath: figure] += (ContinuousClock.now - began).seconds }
    return try body()
  }

  /// What the graph takes for tokens whose rows were read.
  private func newTokens(_ ids: ArraySlice<TokenID>) -> NewTokens {
    NewTokens(ids: ids, embeddings: embeddings?.numbers.baseAddress)
  }

  private func nextChunk(_ prefill: Prefill) -> ArraySlice<TokenID> {
    prefill.tokenIDs[prefill.next...].prefix(chunk)
  }

  private func startRows(of tokenIDs: ArraySlice<TokenID>) throws -> Prefetch? {
    guard let blob else { return nil }
    return try timed(\.lookupSeconds) { try Prefetch(tokenIDs, from: blob) }
  }

  private func check(_ tokenIDs: [TokenID]) throws {
    if tokenIDs.isEmpty {
      throw MolkvError(.contextLength, "the prompt is empty", fix: "give at least one token")
    }
    let room = model.context - position
    if tokenIDs.count > room {
      throw MolkvError(
        .contextLength,
        "\(tokenIDs.count) tokens do not fit: \(position) of the context's \(model.context) are "
          + "taken",
        fix: room > 0 ? "shorten the prompt to \(room) tokens" : "start a new text")
    }
    let last = Int64(model.vocabularySize) - 1
    if let id = tokenIDs.first(where: { $0 < 0 || $0 > last }) {
      throw MolkvError(
        .tokenID, "token id \(id) is outside the vocabulary, 0 to \(last)",
        fix: "use the tokenizer of this bundle")
    }
  }
}
