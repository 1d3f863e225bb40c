import CMolkv
import CoreML
import Foundation

/// The dense graph on Core ML (docs/ios.md).
///
/// The package is loaded once for each of its two functions, which take turns on one state: the
/// self-attention cache and the ring of expert rows. What crosses to Core ML in a step are the new
/// tokens' rows only. float16 rows are handed over where the expert window keeps them, embeddings where
/// the core wrote them; int8 and int4 rows are dequantized into memory that every step uses again.
public final class CoreMLGraph: DenseGraph {
  public let chunk: Int
  private let file: String
  private let feeds: CoreMLFeeds
  private let prefill: Program
  private let decode: Program
  private let state: MLState
  private let rows: [[RowBuffer]]  // by layer; of keys and values
  private var logits: MLMultiArray?  // keeps what was handed out alive

  /// One function of the package, and inputs that every call uses again.
  private final class Program {
    let function: CoreMLFeeds.Function
    let tokens: Int
    let model: MLModel
    let tokenIDs: MLMultiArray
    let position: MLMultiArray
    let logitsIndex: MLMultiArray?

    init(_ function: CoreMLFeeds.Function, feeds: CoreMLFeeds, model: MLModel) throws {
      self.function = function
      self.model = model
      tokens = feeds.tokens(function)
      tokenIDs = try MLMultiArray(shape: [1, NSNumber(value: tokens)], dataType: .int32)
      position = try MLMultiArray(shape: [1], dataType: .int32)
      logitsIndex =
        function == .prefill ? try MLMultiArray(shape: [1], dataType: .int32) : nil
    }
  }

  /// Memory for a chunk's keys or values of one layer, as float16.
  private final class RowBuffer {
    let vectors: ExpertVectors
    let name: String
    let shape: [Int]  // of one row
    let memory: UnsafeMutablePointer<Float16>

    init(_ vectors: ExpertVectors, layer: Int, feeds: CoreMLFeeds) {
      self.vectors = vectors
      name = feeds.name(vectors, layer)
      shape = [feeds.model.experts, feeds.size(of: vectors)]
      let count = feeds.limits.chunk * shape[0] * shape[1]
      memory = .allocate(capacity: count)
      // What lies behind a chunk's last token may be anything finite.
      memory.initialize(repeating: 0, count: count)
    }

    deinit { memory.deallocate() }

    /// The memory, or that of a window's plane, as an input of some rows.
    func input(_ data: UnsafeMutableRawPointer?, rows: Int) throws -> MLFeatureValue {
      let (experts, size) = (shape[0], shape[1])
      return MLFeatureValue(
        multiArray: try MLMultiArray(
          dataPointer: data ?? UnsafeMutableRawPointer(memory),
          shape: [rows, experts, size].map { NSNumber(value: $0) }, dataType: .float16,
          strides: [experts * size, size, 1].map { NSNumber(value: $0) }, deallocator: nil))
    }
  }

  /// Loads a compiled package and checks that it is the one that the bundle's manifest describes.
  ///
  /// - Parameter compiled: from `CompiledModels`.
  /// - Throws: `MolkvError`.
  public init(_ bundle: MolkvBundle, compiled: URL) throws {
    let entry = try bundle.manifest.backend("coreml")
    let feeds = try CoreMLFeeds(bundle.manifest)
    let file = bundle.file(entry.graph).path
    let units = try Self.computeUnits(entry.computeUnits)
    func load(_ function: CoreMLFeeds.Function) throws -> Program {
      let configuration = MLModelConfiguration()
      configuration.computeUnits = units
      configuration.functionName = function.rawValue
      let model: MLModel
      do {
        model = try MLModel(contentsOf: compiled, configuration: configuration)
      } catch {
        throw MolkvError(
          .graph, "\(file): Core ML cannot load \(function): \(error.localizedDescription)",
          fix: "copy the bundle again, or update the system: it needs iOS 18 or macOS 15")
      }
      let properties =
        model.modelDescription.metadata[.creatorDefinedKey] as? [String: String] ?? [:]
      try bundle.manifest.checkFacts(properties, backend: "coreml", file: file)
      try feeds.check(model.modelDescription, function: function, file: file)
      return try Program(function, feeds: feeds, model: model)
    }
    prefill = try load(.prefill)
    decode = try load(.decode)
    state = decode.model.makeState()
    rows = (0..<feeds.model.layers).map { layer in
      feeds.expertVectors.map { RowBuffer($0, layer: layer, feeds: feeds) }
    }
    chunk = feeds.limits.chunk
    self.feeds = feeds
    self.file = file
  }

  public func run(_ tokens: NewTokens, position: Int, window: ExpertWindow?) throws
    -> UnsafeBufferPointer<Float>
  {
    let count = tokens.ids.count
    precondition(count > 0 && count <= chunk)
    // A padded chunk would be written beyond the end of the cache: then token by token.
    let fits = position + chunk <= feeds.limits.cacheTokens
    if count > 1 && fits {
      return try step(prefill, tokens, position: position, window: window, ago: count)
    }
    var result = UnsafeBufferPointer<Float>(start: nil, count: 0)
    for (place, index) in tokens.ids.indices.enumerated() {
      let token = NewTokens(
        ids: tokens.ids[index...index],
        embeddings: tokens.embeddings.map { $0 + place * feeds.model.hiddenSize })
      result = try step(
        decode, token, position: position + place, window: window, ago: count - place)
    }
    return result
  }

  /// Runs one function.
  ///
  /// - Parameter ago: how many rows before the window's end the first token's row lies.
  private func step(
    _ program: Program, _ tokens: NewTokens, position: Int, window: ExpertWindow?, ago: Int
  ) throws -> UnsafeBufferPointer<Float> {
    set(program.position, to: [Int64(position)])
    var inputs = ["position": MLFeatureValue(multiArray: program.position)]
    if feeds.takesEmbeddings {
      inputs["embeddings"] = try embeddings(tokens, rows: program.tokens)
    } else {
      set(program.tokenIDs, to: tokens.ids)
      inputs["input_ids"] = MLFeatureValue(multiArray: program.tokenIDs)
    }
    if let index = program.logitsIndex {
      set(index, to: [Int64(tokens.ids.count - 1)])
      inputs["logits_index"] = MLFeatureValue(multiArray: index)
    }
    for (layer, buffers) in rows.enumerated() {
      for buffer in buffers {
        inputs[buffer.name] = try input(
          buffer, layer: layer, window: window, ago: ago, count: tokens.ids.count,
          rows: program.tokens)
      }
    }
    let output: any MLFeatureProvider
    do {
      output = try program.model.prediction(
        from: MLDictionaryFeatureProvider(dictionary: inputs), using: state)
    } catch {
      throw MolkvError(
        .graph, "\(file): Core ML cannot run \(program.function): \(error.localizedDescription)",
        fix: "close other apps, or choose other compute units")
    }
    return try logits(of: output, program.function)
  }

  private func embeddings(_ tokens: NewTokens, rows: Int) throws -> MLFeatureValue {
    guard let data = tokens.embeddings else {
      throw MolkvError(
        .usage, "\(file): takes embeddings, and there are none", fix: "pass those of the rows")
    }
    let size = feeds.model.hiddenSize
    return MLFeatureValue(
      multiArray: try MLMultiArray(
        dataPointer: data, shape: [1, rows, size].map { NSNumber(value: $0) }, dataType: .float32,
        strides: [rows * size, size, 1].map { NSNumber(value: $0) }, deallocator: nil))
  }

  private func input(
    _ buffer: RowBuffer, layer: Int, window: ExpertWindow?, ago: Int, count: Int, rows: Int
  ) throws -> MLFeatureValue {
    guard let window else {
      throw MolkvError(.usage, "\(file): has experts, and there is no window", fix: "pass one")
    }
    let plane = try window.plane(buffer.vectors.plane, layer: layer)
    let first = plane.rows - ago
    if plane.type == MOLKV_FLOAT16, count == rows, let data = plane.data {
      return try buffer.input(data + first * plane.rowBytes, rows: rows)
    }
    let memory = buffer.memory
    try window.dequantize(buffer.vectors, layer: layer, rows: first..<first + count) {
      memory[$0] = Float16($1)
    }
    return try buffer.input(nil, rows: rows)
  }

  private func logits(of output: any MLFeatureProvider, _ function: CoreMLFeeds.Function) throws
    -> UnsafeBufferPointer<Float>
  {
    let vocabulary = feeds.model.vocabularySize
    guard let array = output.featureValue(for: "logits")?.multiArrayValue,
      array.dataType == .float32, array.count == vocabulary, array.strides.last == 1
    else {
      throw MolkvError(
        .graph, "\(file): the logits of \(function) are not float32 [\(vocabulary)]",
        fix: "update the system")
    }
    logits = array
    return array.withUnsafeBufferPointer(ofType: Float.self) { $0 }
  }

  private func set(_ array: MLMultiArray, to numbers: some Sequence<Int64>) {
    array.withUnsafeMutableBytes { bytes, _ in
      let elements = bytes.bindMemory(to: Int32.self)
      var next = 0
      for number in numbers {
        elements[next] = Int32(truncatingIfNeeded: number)
        next += 1
      }
      for place in next..<elements.count { elements[place] = 0 }
    }
  }

  private static func computeUnits(_ name: String?) throws -> MLComputeUnits {
    switch name {
    case "cpuAndGPU", nil: .cpuAndGPU
    case "cpuAndNeuralEngine": .cpuAndNeuralEngine
    case "cpuOnly": .cpuOnly
    case "all": .all
    default:
      throw MolkvError(
        .bundle, "\(Manifest.fileName): backends.coreml.compute_units is '\(name ?? "")'",
        fix: "export with the version of this app")
    }
  }
}
