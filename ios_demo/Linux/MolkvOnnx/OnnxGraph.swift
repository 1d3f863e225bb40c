import CMolkv
import CMolkvOnnx
import MolkvKit

/// The dense graph on ONNX Runtime, through the repository's own C++ engine: what MolkvKit runs on
/// where there is no Core ML.
public final class OnnxGraph: DenseGraph {
  private let handle: OpaquePointer
  private let vocabularySize: Int

  /// - Parameters:
  ///   - runtime: a libonnxruntime; nil: MOLKV_ONNXRUNTIME, or the system's.
  ///   - operators: libmolkv_ort; nil: the function inside the file is run.
  public init(_ bundle: MolkvBundle, runtime: String? = nil, operators: String? = nil) throws {
    _ = try bundle.manifest.backend("onnx")
    vocabularySize = bundle.manifest.model.vocabularySize
    handle = try withText(bundle.folder.path) { folder in
      try withText(runtime) { runtime in
        try withText(operators) { operators in
          var options = molkv_onnx_graph_options(
            struct_size: UInt32(MemoryLayout<molkv_onnx_graph_options>.size), threads: 1,
            bundle: folder, onnxruntime: runtime, operator_library: operators)
          return try makeNative(format: .bundle) { molkv_onnx_graph_open(&options, $0, $1) }
        }
      }
    }
  }

  deinit { molkv_onnx_graph_close(handle) }

  public var chunk: Int { molkv_onnx_graph_chunk(handle) }

  public func run(_ tokens: NewTokens, position: Int, window: ExpertWindow?) throws
    -> UnsafeBufferPointer<Float>
  {
    var logits: UnsafePointer<Float>?
    try tokens.ids.withUnsafeBufferPointer { ids in
      try callNative(format: .graph) {
        molkv_onnx_graph_run(
          handle, ids.baseAddress, tokens.embeddings, ids.count, Int64(position), window?.handle,
          &logits, $0)
      }
    }
    return UnsafeBufferPointer(start: logits, count: vocabularySize)
  }
}

/// A C string for the time of a call; nil stays nil.
private func withText<Result>(_ text: String?, _ body: (UnsafePointer<CChar>?) throws -> Result)
  rethrows -> Result
{
  guard let text else { return try body(nil) }
  return try text.withCString(body)
}
