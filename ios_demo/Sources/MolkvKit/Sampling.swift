import CMolkv

/// How tokens are chosen (docs/sampling.md).
public struct Sampling: Equatable, Sendable {
  /// 0 always takes the best token.
  public var temperature: Double
  /// 0 keeps all.
  public var topK: Int
  /// 1 keeps all; greater than 0.
  public var topP: Double
  /// 0 keeps all; at most 1.
  public var minP: Double
  /// The same seed and logits give the same tokens, everywhere.
  public var seed: UInt64

  public init(
    temperature: Double = 0.8, topK: Int = 40, topP: Double = 0.95, minP: Double = 0,
    seed: UInt64 = 0
  ) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
    self.seed = seed
  }

  /// Always the best token.
  public static let greedy = Sampling(temperature: 0, topK: 0, topP: 1)
}

/// Chooses tokens; has its own random generator.
final class Sampler {
  private let handle: OpaquePointer

  init(_ sampling: Sampling) throws {
    guard let topK = UInt32(exactly: sampling.topK) else {
      throw MolkvError(.usage, "top_k is \(sampling.topK)", fix: "use 0 to 4294967295")
    }
    var settings = molkv_sampling()
    settings.struct_size = UInt32(MemoryLayout<molkv_sampling>.size)
    settings.top_k = topK
    settings.temperature = sampling.temperature
    settings.top_p = sampling.topP
    settings.min_p = sampling.minP
    settings.seed = sampling.seed
    handle = try makeNative { molkv_sampler_create(&settings, $0, $1) }
  }

  deinit { molkv_sampler_free(handle) }

  func sample(_ logits: UnsafeBufferPointer<Float>) throws -> TokenID {
    var id: TokenID = 0
    try callNative(format: .graph) {
      molkv_sampler_sample(handle, logits.baseAddress, logits.count, &id, $0)
    }
    return id
  }
}
