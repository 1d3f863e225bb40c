// Core ML's models, as far as MolkvKit uses them. There is nothing here that could run one: a test
// says where predictions come from.

import Foundation

/// Where models of a test come from; Core ML itself has no such thing.
public protocol ModelHost: AnyObject {
  func describe(_ model: URL, function: String) throws -> MLModelDescription
  func predict(function: String, inputs: [String: MLMultiArray], state: MLState) throws -> [String:
    MLMultiArray]
}

public enum MLComputeUnits: Int, Sendable {
  case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

public final class MLModelConfiguration {
  public var computeUnits = MLComputeUnits.all
  public var functionName: String?
  public init() {}
}

public struct MLModelMetadataKey: Hashable, Sendable {
  let name: String
  public static let creatorDefinedKey = MLModelMetadataKey(name: "MLModelCreatorDefinedKey")
}

public final class MLMultiArrayConstraint {
  public let shape: [NSNumber]
  public let dataType: MLMultiArrayDataType
  public init(shape: [NSNumber], dataType: MLMultiArrayDataType) {
    self.shape = shape
    self.dataType = dataType
  }
}

public final class MLStateConstraint {
  public let bufferShape: [Int]
  public let dataType: MLMultiArrayDataType
  public init(bufferShape: [Int], dataType: MLMultiArrayDataType) {
    self.bufferShape = bufferShape
    self.dataType = dataType
  }
}

public final class MLFeatureDescription {
  public let name: String
  public let multiArrayConstraint: MLMultiArrayConstraint?
  public let stateConstraint: MLStateConstraint?
  public init(
    name: String, multiArrayConstraint: MLMultiArrayConstraint? = nil,
    stateConstraint: MLStateConstraint? = nil
  ) {
    self.name = name
    self.multiArrayConstraint = multiArrayConstraint
    self.stateConstraint = stateConstraint
  }
}

public final class MLModelDescription {
  public let inputDescriptionsByName: [String: MLFeatureDescription]
  public let outputDescriptionsByName: [String: MLFeatureDescription]
  public let stateDescriptionsByName: [String: MLFeatureDescription]
  public let metadata: [MLModelMetadataKey: Any]
  public init(
    inputs: [MLFeatureDescription], outputs: [MLFeatureDescription],
    states: [MLFeatureDescription], creatorDefined: [String: String]
  ) {
    let byName = { (features: [MLFeatureDescription]) in
      Dictionary(uniqueKeysWithValues: features.map { ($0.name, $0) })
    }
    inputDescriptionsByName = byName(inputs)
    outputDescriptionsByName = byName(outputs)
    stateDescriptionsByName = byName(states)
    metadata = [.creatorDefinedKey: creatorDefined]
  }
}

public final class MLFeatureValue {
  public let multiArrayValue: MLMultiArray?
  public init(multiArray: MLMultiArray) { multiArrayValue = multiArray }
}

public protocol MLFeatureProvider {
  var featureNames: Set<String> { get }
  func featureValue(for featureName: String) -> MLFeatureValue?
}

public final class MLDictionaryFeatureProvider: MLFeatureProvider {
  public let dictionary: [String: MLFeatureValue]
  public init(dictionary: [String: Any]) throws {
    self.dictionary = dictionary.compactMapValues { $0 as? MLFeatureValue }
    precondition(self.dictionary.count == dictionary.count)
  }
  public var featureNames: Set<String> { Set(dictionary.keys) }
  public func featureValue(for featureName: String) -> MLFeatureValue? { dictionary[featureName] }
}

public final class MLState: Sendable {}

public final class MLModel {
  /// Where a test's models come from.
  public nonisolated(unsafe) static var host: (any ModelHost)?

  public struct NoCoreML: Error, LocalizedError {
    public var errorDescription: String? { "this system has no Core ML" }
  }

  public let modelDescription: MLModelDescription
  private let host: any ModelHost
  private let function: String

  public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
    guard let host = Self.host else { throw NoCoreML() }
    self.host = host
    function = configuration.functionName ?? ""
    modelDescription = try host.describe(url, function: function)
  }

  /// The compiled model is at a temporary place, as Core ML's is.
  public static func compileModel(at url: URL) async throws -> URL {
    guard host != nil else { throw NoCoreML() }
    let compiled = FileManager.default.temporaryDirectory
      .appendingPathComponent("\(UUID().uuidString).mlmodelc")
    try FileManager.default.copyItem(at: url, to: compiled)
    return compiled
  }

  public func makeState() -> MLState { MLState() }

  public func prediction(from input: any MLFeatureProvider, using state: MLState) throws
    -> any MLFeatureProvider
  {
    let inputs = Dictionary(
      uniqueKeysWithValues: input.featureNames.map {
        ($0, input.featureValue(for: $0)!.multiArrayValue!)
      })
    let outputs = try host.predict(function: function, inputs: inputs, state: state)
    return try MLDictionaryFeatureProvider(
      dictionary: outputs.mapValues { MLFeatureValue(multiArray: $0) })
  }
}
