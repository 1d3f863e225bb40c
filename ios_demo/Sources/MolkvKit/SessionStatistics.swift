/// What a session did and how fast, since its last prompt began. Times are in seconds.
public struct SessionStatistics: Equatable, Sendable {
  public var prefillTokens = 0
  /// Lookup included.
  public var prefillSeconds = 0.0
  public var decodeTokens = 0
  /// Lookup included; sampling and text are not.
  public var decodeSeconds = 0.0
  /// Waiting for rows and copying them into the window.
  public var lookupSeconds = 0.0
  /// Inside the graph engine while decoding.
  public var decodeEngineSeconds = 0.0
  /// From the prompt's ids to the first token.
  public var timeToFirstToken = 0.0
  public var rowsRead: UInt64 = 0
  public var bytesRead: UInt64 = 0
  /// The expert window's memory.
  public var windowBytes = 0

  public init() {}

  public var prefillTokensPerSecond: Double {
    prefillSeconds > 0 ? Double(prefillTokens) / prefillSeconds : 0
  }

  /// Of single steps; the first token belongs to prefill.
  public var decodeTokensPerSecond: Double {
    decodeSeconds > 0 ? Double(decodeTokens) / decodeSeconds : 0
  }
}

extension Duration {
  var seconds: Double {
    Double(components.seconds) + Double(components.attoseconds) * 1e-18
  }
}
