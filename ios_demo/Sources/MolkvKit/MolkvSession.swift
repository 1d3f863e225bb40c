import Foundation

/// One generated token.
public struct Token: Equatable, Sendable {
  public let id: TokenID
  /// The whole characters that it completes, possibly none; empty without a tokenizer.
  public let text: String
}

/// What to generate.
public struct GenerationRequest: Sendable {
  public enum Prompt: Sendable {
    case text(String)
    case tokenIDs([TokenID])
  }

  public var prompt: Prompt
  public var maxNewTokens: Int
  public var sampling: Sampling
  /// Ids that end the text and are not handed out; nil: the tokenizer's end of text, if it has one.
  public var stopIDs: Set<TokenID>?

  public init(
    prompt: Prompt, maxNewTokens: Int = 128, sampling: Sampling = Sampling(),
    stopIDs: Set<TokenID>? = nil
  ) {
    self.prompt = prompt
    self.maxNewTokens = maxNewTokens
    self.sampling = sampling
    self.stopIDs = stopIDs
  }
}

/// Runs a bundle's model. One sequence at a time: generations wait for each other.
public actor MolkvSession {
  public nonisolated let bundle: MolkvBundle
  public nonisolated let tokenizer: Tokenizer?
  public nonisolated let backend: String
  private let graph: any DenseGraph
  private let sequence: TokenSequence
  private let chunk: Int
  private let blob: ExpertBlob?
  private let queue: SerialQueue
  private var isBusy = false
  private var waiting: [CheckedContinuation<Void, Never>] = []

  /// A graph's steps block a thread, which must not be one of Swift's few shared ones.
  public nonisolated var unownedExecutor: UnownedSerialExecutor {
    queue.asUnownedSerialExecutor()
  }

  /// Opens the bundle's blob and tokenizer beside a loaded graph.
  ///
  /// - Parameters:
  ///   - backend: whose graph it is, as the manifest names it.
  ///   - chunk: the most tokens that prefill runs at once; the graph may take fewer.
  public init(bundle: MolkvBundle, graph: sending any DenseGraph, backend: String, chunk: Int = 128)
    throws
  {
    _ = try bundle.manifest.backend(backend)
    self.bundle = bundle
    self.backend = backend
    queue = SerialQueue("molkv.session")
    tokenizer = try bundle.openTokenizer()
    blob = try bundle.openExperts()
    self.graph = graph
    self.chunk = chunk
    sequence = try TokenSequence(
      model: bundle.manifest.model, graph: graph, blob: blob, chunk: chunk)
  }

  /// Of the current sequence, also while it runs.
  public var statistics: SessionStatistics { sequence.statistics }

  /// Tokens that the sequence has.
  public var position: Int { sequence.position }

  /// Starts a new text with a prompt and continues it, token by token.
  ///
  /// Ends after `maxNewTokens`, before a stop id, or when the context is full. Bytes that complete
  /// no character come out as U+FFFD with the last token. Cancelling the task that reads the stream,
  /// or no longer reading it, stops the work before the next step.
  ///
  /// The stream throws `MolkvError`.
  public nonisolated func generate(_ request: GenerationRequest)
    -> AsyncThrowingStream<Token, any Error>
  {
    AsyncThrowingStream { continuation in
      let task = Task {
        do {
          try await self.run(request) { continuation.yield($0) }
          continuation.finish()
        } catch is CancellationError {
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
      continuation.onTermination = { _ in task.cancel() }
    }
  }

  /// Compares this device with the bundle's golden cases, rung by rung (docs/graph.md, "The parity
  /// ladder"). Ends the current text.
  ///
  /// The stream throws `MolkvError` where something cannot be run at all.
  public nonisolated func checkParity() -> AsyncThrowingStream<ParityRung, any Error> {
    AsyncThrowingStream { continuation in
      let task = Task {
        do {
          try await self.climb { continuation.yield($0) }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
      continuation.onTermination = { _ in task.cancel() }
    }
  }

  private func climb(take: @Sendable (ParityRung) -> Void) async throws {
    try await begin()
    defer { end() }
    let ladder = ParityLadder(
      model: bundle.manifest.model, backend: try bundle.manifest.backend(backend),
      golden: try bundle.loadGolden(), graph: graph, blob: blob, tokenizer: tokenizer, chunk: chunk)
    try ladder.climb(take: take)
  }

  /// Waits until no other generation runs.
  private func begin() async throws {
    while isBusy {
      await withCheckedContinuation { waiting.append($0) }
    }
    isBusy = true
    if Task.isCancelled {
      end()
      throw CancellationError()
    }
  }

  private func end() {
    isBusy = false
    if !waiting.isEmpty { waiting.removeFirst().resume() }
  }

  private func run(_ request: GenerationRequest, take: @Sendable (Token) -> Void) async throws {
    try await begin()
    defer { end() }
    let began = ContinuousClock.now
    let promptIDs = try tokenIDs(of: request.prompt)
    let sampler = try Sampler(request.sampling)
    let stopIDs = request.stopIDs ?? Set([tokenizer?.endOfText].compactMap { $0 })
    let stream = try tokenizer.map { try TextStream($0, after: promptIDs) }
    sequence.restart()
    var prefill = try sequence.beginPrefill(promptIDs)
    var logits = try sequence.run(&prefill)
    while !prefill.isDone {
      try await pause()
      logits = try sequence.run(&prefill)
    }
    for count in 0..<max(0, request.maxNewTokens) {
      let id = try sampler.sample(logits)
      if count == 0 { sequence.setTimeToFirstToken((ContinuousClock.now - began).seconds) }
      if stopIDs.contains(id) { return }
      // The last token is not run: nobody asks what follows it.
      let isLast =
        count + 1 == request.maxNewTokens || sequence.position == bundle.manifest.model.context
      var text = try stream?.push(id) ?? ""
      if isLast { text += try stream?.finish() ?? "" }
      take(Token(id: id, text: text))
      if isLast { return }
      try await pause()
      logits = try sequence.step(id)
    }
  }

  /// Lets others look at the statistics, and stops when the task was cancelled.
  private func pause() async throws {
    await Task.yield()
    try Task.checkCancellation()
  }

  private func tokenIDs(of prompt: GenerationRequest.Prompt) throws -> [TokenID] {
    switch prompt {
    case .tokenIDs(let ids): return ids
    case .text(let text):
      guard let tokenizer else {
        throw MolkvError(
          .tokenizer, "\(bundle.folder.path): has no tokenizer, so it takes ids, not text",
          fix: "pass token ids, or export with a tokenizer")
      }
      return try tokenizer.encode(text)
    }
  }
}
