import CoreML
import Foundation

/// Stands in for Core ML: describes real packages and evaluates them op by op, in another process
/// of the tests (`core_ml_server.py`).
public final class EvaluatedModels: ModelHost {
  public struct Failure: Error, LocalizedError {
    let words: String
    public var errorDescription: String? { words }
  }

  struct Feature: Codable {
    let name: String
    let shape: [Int]
    let type: Int
  }

  private struct Request: Encodable {
    let ask: String
    let package: String
    let function: String
    var state = 0
    var arrays: [Feature] = []
  }

  private struct Answer: Decodable {
    var error: String?
    var inputs: [Feature]?
    var outputs: [Feature]?
    var states: [Feature]?
    var metadata: [String: String]?
    var arrays: [Feature] = []
  }

  /// What was asked of the models, to look at: the function and its inputs' shapes.
  public private(set) var calls: [(function: String, inputs: [String: MLMultiArray])] = []
  private let socket: Int32
  private let package: URL
  private var states: [ObjectIdentifier: (MLState, Int)] = [:]

  /// - Parameter package: what every model is, wherever a compiled copy lies.
  public init(package: URL) throws {
    self.package = package
    socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let path = Fixtures.variable("MOLKV_CORE_ML_SERVER")
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(socket, $0, size) }
    }
    guard result == 0 else { throw Failure(words: "\(path): \(String(cString: strerror(errno)))") }
  }

  deinit { close(socket) }

  public func describe(_ model: URL, function: String) throws -> MLModelDescription {
    let request = Request(ask: "describe", package: package.path, function: function)
    let (answer, _) = try ask(request, [])
    let arrays = { (features: [Feature]?) in
      (features ?? []).map {
        MLFeatureDescription(
          name: $0.name,
          multiArrayConstraint: MLMultiArrayConstraint(
            shape: $0.shape.map { NSNumber(value: $0) },
            dataType: MLMultiArrayDataType(rawValue: $0.type)!))
      }
    }
    let states = (answer.states ?? []).map {
      MLFeatureDescription(
        name: $0.name,
        stateConstraint: MLStateConstraint(
          bufferShape: $0.shape, dataType: MLMultiArrayDataType(rawValue: $0.type)!))
    }
    return MLModelDescription(
      inputs: arrays(answer.inputs), outputs: arrays(answer.outputs), states: states,
      creatorDefined: answer.metadata ?? [:])
  }

  public func predict(function: String, inputs: [String: MLMultiArray], state: MLState) throws
    -> [String: MLMultiArray]
  {
    calls.append((function, inputs))
    let known = states[ObjectIdentifier(state)]?.1 ?? states.count + 1
    states[ObjectIdentifier(state)] = (state, known)
    var request = Request(
      ask: "predict", package: package.path, function: function, state: known)
    let ordered = inputs.sorted { $0.key < $1.key }
    request.arrays = ordered.map {
      Feature(
        name: $0.key, shape: $0.value.shape.map(\.intValue), type: $0.value.dataType.rawValue)
    }
    let (answer, content) = try ask(request, ordered.map(\.value))
    var outputs: [String: MLMultiArray] = [:]
    for (feature, bytes) in zip(answer.arrays, content) {
      let array = try MLMultiArray(
        shape: feature.shape.map { NSNumber(value: $0) },
        dataType: MLMultiArrayDataType(rawValue: feature.type)!)
      array.withUnsafeMutableBytes { target, _ in target.copyBytes(from: bytes) }
      outputs[feature.name] = array
    }
    return outputs
  }

  private func ask(_ request: Request, _ arrays: [MLMultiArray]) throws -> (Answer, [Data]) {
    let json = try JSONEncoder().encode(request)
    var message = withUnsafeBytes(of: UInt32(json.count).littleEndian) { Data($0) }
    message += json
    for array in arrays { array.withUnsafeBytes { message.append(contentsOf: $0) } }
    try send(message)
    let size = try receive(4).withUnsafeBytes {
      UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self))
    }
    let answer = try JSONDecoder().decode(Answer.self, from: receive(Int(size)))
    if let error = answer.error { throw Failure(words: error) }
    let content = try answer.arrays.map { feature in
      try receive(feature.shape.reduce((feature.type & 0xff) / 8, *))
    }
    return (answer, content)
  }

  private func send(_ message: Data) throws {
    try message.withUnsafeBytes { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while !rest.isEmpty {
        let count = write(socket, rest.baseAddress, rest.count)
        guard count > 0 else { throw Failure(words: "the server went away") }
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
      }
    }
  }

  private func receive(_ count: Int) throws -> Data {
    var content = Data(count: count)
    try content.withUnsafeMutableBytes { bytes in
      var rest = UnsafeMutableRawBufferPointer(bytes)
      while !rest.isEmpty {
        let count = read(socket, rest.baseAddress, rest.count)
        guard count > 0 else { throw Failure(words: "the server went away") }
        rest = UnsafeMutableRawBufferPointer(rebasing: rest.dropFirst(count))
      }
    }
    return content
  }
}
