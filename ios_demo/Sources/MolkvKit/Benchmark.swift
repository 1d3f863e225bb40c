import Foundation

/// Measures a session: prefill and single steps, some times over.
public struct Benchmark: Sendable {
  /// Tokens of the prompt.
  public var promptTokens: Int
  /// Single steps behind it.
  public var newTokens: Int
  public var repetitions: Int

  public init(promptTokens: Int = 128, newTokens: Int = 64, repetitions: Int = 5) {
    self.promptTokens = promptTokens
    self.newTokens = newTokens
    self.repetitions = repetitions
  }

  /// One repetition's figures.
  public struct Sample: Sendable, Equatable, Codable {
    public let prefillTokensPerSecond: Double
    public let decodeTokensPerSecond: Double
    /// In seconds.
    public let timeToFirstToken: Double
    /// Of decode time: inside the graph engine.
    public let engineShare: Double
    /// Reading rows and moving them to the window, in microseconds for each token.
    public let lookupMicroseconds: Double
    public let bytesReadPerToken: Double
    /// Bytes of the app's memory afterwards; nil where the system does not say.
    public let memory: UInt64?
  }

  /// What was measured, and where; JSON for machines.
  public struct Report: Sendable, Codable {
    public let identity: String
    public let backend: String
    public let dense: String
    public let experts: String
    public let system: String
    public let promptTokens: Int
    public let newTokens: Int
    public let samples: [Sample]

    /// The middle sample of a figure.
    public func median(_ figure: (Sample) -> Double) -> Double {
      let sorted = samples.map(figure).sorted()
      guard !sorted.isEmpty else { return 0 }
      let middle = sorted.count / 2
      return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    public func json() throws -> Data {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      return try encoder.encode(self)
    }
  }

  /// Runs the repetitions, after one that is not counted.
  ///
  /// - Parameter progress: told how many of all repetitions, the first included, are done.
  /// - Throws: `MolkvError`; `CancellationError` if the task is cancelled.
  public func run(
    _ session: MolkvSession, progress: @Sendable (Int, Int) async -> Void
  ) async throws -> Report {
    let manifest = session.bundle.manifest
    try check(manifest.model)
    var samples: [Sample] = []
    for repetition in 0...repetitions {
      // Other ids each time, so that rows come from storage and not from a cache of the last run.
      var random = SplitMix(state: UInt64(repetition))
      let ids = (0..<promptTokens).map { _ in
        TokenID(random.next() % UInt64(manifest.model.vocabularySize))
      }
      let request = GenerationRequest(
        prompt: .tokenIDs(ids), maxNewTokens: newTokens + 1, sampling: .greedy, stopIDs: [])
      for try await _ in session.generate(request) { try Task.checkCancellation() }
      try Task.checkCancellation()
      if repetition > 0 { samples.append(sample(await session.statistics)) }
      await progress(repetition + 1, repetitions + 1)
    }
    let backend = try manifest.backend(session.backend)
    return Report(
      identity: manifest.identity, backend: session.backend, dense: backend.dense.rawValue,
      experts: manifest.expertPrecision?.rawValue ?? "none",
      system: ProcessInfo.processInfo.operatingSystemVersionString, promptTokens: promptTokens,
      newTokens: newTokens, samples: samples)
  }

  private func check(_ model: Manifest.Model) throws {
    guard promptTokens > 0, newTokens > 0, repetitions > 0 else {
      throw MolkvError(
        .usage, "a prompt of \(promptTokens), \(newTokens) new tokens, \(repetitions) repetitions",
        fix: "use at least 1 of each")
    }
    if promptTokens + newTokens > model.context {
      throw MolkvError(
        .contextLength,
        "\(promptTokens) and \(newTokens) tokens do not fit the context of \(model.context)",
        fix: "measure fewer tokens")
    }
  }

  private func sample(_ statistics: SessionStatistics) -> Sample {
    let tokens = Double(statistics.prefillTokens + statistics.decodeTokens)
    return Sample(
      prefillTokensPerSecond: statistics.prefillTokensPerSecond,
      decodeTokensPerSecond: statistics.decodeTokensPerSecond,
      timeToFirstToken: statistics.timeToFirstToken,
      engineShare: statistics.decodeEngineSeconds / max(statistics.decodeSeconds, 1e-12),
      lookupMicroseconds: 1e6 * statistics.lookupSeconds / tokens,
      bytesReadPerToken: Double(statistics.bytesRead) / tokens,
      memory: ProcessMemory.now()?.used)
  }
}

/// A small random generator, for ids that are the same on every device.
private struct SplitMix {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
