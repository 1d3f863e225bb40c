import MolkvKit
import Observation

/// How the user wants tokens chosen.
@MainActor @Observable
public final class SamplingSettings {
  public var isGreedy = false
  public var temperature = 0.8
  public var topK = 40
  public var topP = 0.95
  public var minP = 0.0
  /// Empty: another one each time.
  public var seed = ""
  public var maxNewTokens = 128

  public init() {}

  /// The settings as the sampler takes them; a seed that is no number is an error.
  public func sampling() throws -> Sampling {
    if isGreedy { return .greedy }
    return Sampling(
      temperature: temperature, topK: topK, topP: topP, minP: minP, seed: try number())
  }

  private func number() throws -> UInt64 {
    if seed.isEmpty { return .random(in: 0...UInt64.max) }
    guard let number = UInt64(seed) else {
      throw MolkvError(.usage, "the seed is '\(seed)'", fix: "use a whole number from 0")
    }
    return number
  }
}
