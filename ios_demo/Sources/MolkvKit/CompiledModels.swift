import CoreML
import Foundation

/// Core ML packages compiled on this device, kept in a folder that the system may empty.
public struct CompiledModels: Sendable {
  let folder: URL

  public init(folder: URL) { self.folder = folder }

  /// In the app's caches.
  public static var caches: CompiledModels {
    let caches = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask)[0]
    return CompiledModels(folder: caches.appendingPathComponent("molkv/compiled"))
  }

  /// The bundle's package, compiled; the first time takes seconds.
  ///
  /// - Throws: `MolkvError.Kind.graph` if Core ML cannot compile it.
  public func model(of bundle: MolkvBundle) async throws -> URL {
    let graph = try bundle.manifest.backend("coreml").graph
    let target = folder.appendingPathComponent("\(digest(of: graph, bundle.manifest)).mlmodelc")
    let files = FileManager.default
    if files.fileExists(atPath: target.path) { return target }
    let package = bundle.file(graph)
    do {
      let compiled = try await MLModel.compileModel(at: package)
      defer { try? files.removeItem(at: compiled) }
      try files.createDirectory(at: folder, withIntermediateDirectories: true)
      do {
        try files.moveItem(at: compiled, to: target)
      } catch  where files.fileExists(atPath: target.path) {
        // Somebody else was faster.
      }
      return target
    } catch {
      throw MolkvError(
        .graph, "\(package.path): Core ML cannot compile it: \(error.localizedDescription)",
        fix: "copy the bundle again, or update the system: it needs iOS 18 or macOS 15")
    }
  }

  /// What the package's content is known by: the sha256 over its files' names and sha256.
  private func digest(of graph: String, _ manifest: Manifest) -> String {
    let lines = manifest.files.filter { $0.name.hasPrefix(graph + "/") }
      .map { "\($0.name) \($0.sha256)\n" }.sorted().joined()
    return Array(lines.utf8).withUnsafeBytes { sha256($0) }
  }
}

extension CoreMLGraph {
  /// Compiles a bundle's package if need be, and loads it.
  public static func load(_ bundle: MolkvBundle, models: CompiledModels = .caches) async throws
    -> sending CoreMLGraph
  {
    let compiled = try await models.model(of: bundle)
    return try CoreMLGraph(bundle, compiled: compiled)
  }
}
