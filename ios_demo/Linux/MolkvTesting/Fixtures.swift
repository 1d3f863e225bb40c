import Foundation
import MolkvKit
import MolkvOnnx

/// Files that the tests are run on; `tests/devices/ios` of the repository makes them.
public enum Fixtures {
  /// A real trained model: the repository's embedded checkpoint, with its tokenizer.
  public static let tiny = folder("tiny")
  /// A small random model without a tokenizer.
  public static let small = folder("small")
  /// Another with a tokenizer, whose rows carry the input embedding.
  public static let stored = folder("stored")
  /// Hostile copies of a small bundle, and `expected.json`.
  public static let attacks = folder("attacks")

  public static func folder(_ name: String) -> URL {
    URL(fileURLWithPath: variable("MOLKV_TEST_FILES")).appendingPathComponent(name)
  }

  /// A JSON file beside the bundles.
  public static func json<Content: Decodable>(_ name: String, as type: Content.Type) throws
    -> Content
  {
    try JSONDecoder().decode(type, from: Data(contentsOf: folder(name)))
  }

  /// A session on ONNX Runtime.
  ///
  /// - Parameter stock: without molkv's operator: the function inside the file is run.
  public static func session(_ folder: URL, stock: Bool = false, chunk: Int = 128) throws
    -> MolkvSession
  {
    let bundle = try MolkvBundle(folder: folder)
    let graph = try OnnxGraph(bundle, operators: stock ? nil : variable("MOLKV_OPERATORS"))
    return try MolkvSession(bundle: bundle, graph: graph, backend: "onnx", chunk: chunk)
  }

  /// A folder of its own, gone when the body ends.
  public static func temporaryFolder(
    isolation: isolated (any Actor)? = #isolation, _ body: (URL) async throws -> Void
  ) async throws {
    let folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("molkv-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    try await body(folder)
  }

  static func variable(_ name: String) -> String {
    guard let value = ProcessInfo.processInfo.environment[name] else {
      fatalError("\(name) is not set: run the tests with pytest, tests/devices/ios")
    }
    return value
  }
}

/// The ids and the text that a request gives.
public func generated(_ session: MolkvSession, _ request: GenerationRequest) async throws -> (
  ids: [TokenID], text: String
) {
  var ids: [TokenID] = []
  var text = ""
  for try await token in session.generate(request) {
    ids.append(token.id)
    text += token.text
  }
  return (ids, text)
}
