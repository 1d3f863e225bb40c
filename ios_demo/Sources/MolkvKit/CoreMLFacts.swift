import CoreML
import Foundation

extension CoreMLFeeds {
  /// Checks that a loaded function takes, gives and keeps what it must.
  ///
  /// - Throws: `MolkvError.Kind.bundle`, which names the first thing that differs.
  func check(_ description: MLModelDescription, function: Function, file: String) throws {
    try compare(
      inputs(function), description.inputDescriptionsByName, "input of \(function)", file: file)
    try compare(
      outputs(function), description.outputDescriptionsByName, "output of \(function)", file: file)
    // Core ML makes the states, in the shapes that it wants.
    let names = Set(states().map(\.name))
    let found = Set(description.stateDescriptionsByName.keys)
    if let different = names.symmetricDifference(found).min() {
      let fault = names.contains(different) ? "missing" : "unknown"
      throw refusal(file, "state \(different) of \(function) is \(fault)")
    }
    for (name, state) in description.stateDescriptionsByName
    where state.stateConstraint?.dataType != .float16 {
      throw refusal(file, "state \(name) of \(function) is not float16")
    }
  }

  private func compare(
    _ expected: [Feed], _ found: [String: MLFeatureDescription], _ what: String, file: String
  ) throws {
    for feed in expected {
      guard let constraint = found[feed.name]?.multiArrayConstraint else {
        throw refusal(file, "\(what) \(feed.name) is missing")
      }
      let shape = constraint.shape.map(\.intValue)
      if shape != feed.shape || constraint.dataType != feed.type {
        throw refusal(
          file,
          "\(what) \(feed.name) is \(constraint.dataType) \(shape), expected \(feed.type) "
            + "\(feed.shape)")
      }
    }
    if let unknown = Set(found.keys).subtracting(expected.map(\.name)).min() {
      throw refusal(file, "\(what) \(unknown) is unknown")
    }
  }

  private func refusal(_ file: String, _ problem: String) -> MolkvError {
    MolkvError(.bundle, "\(file): \(problem)", fix: "export with the version of this app")
  }
}

extension Manifest {
  /// Checks that a graph was lowered from the checkpoint that this manifest describes.
  ///
  /// - Parameter properties: the graph's `molkv.*` properties (docs/graph.md, "The bundle").
  /// - Throws: `MolkvError.Kind.bundle`, which names the first fact that differs.
  func checkFacts(_ properties: [String: String], backend name: String, file: String) throws {
    let backend = try backend(name)
    let config = record(properties["molkv.config"])
    var facts: [(String, JSONValue, JSONValue)] = [
      ("identity", text(properties["molkv.identity"]), .text(identity)),
      ("experts", text(properties["molkv.experts"]), .text(expertPrecision?.rawValue ?? "none")),
      (
        "embedding", text(properties["molkv.embedding"]),
        embeddingPrecision == nil ? .null : .text("storage")
      ),
      ("dense", text(properties["molkv.dense"]), .text(backend.dense.rawValue)),
      ("cache", text(properties["molkv.cache"]), .text(backend.cache.rawValue)),
    ]
    if let limits = backend.limits {
      let stated = record(properties["molkv.limits"])
      for (name, value) in [
        ("chunk", limits.chunk), ("context", limits.context),
        ("cache_tokens", limits.cacheTokens), ("window", limits.window),
      ] {
        facts.append(("limits.\(name)", stated[name] ?? .null, .number(Double(value))))
      }
    }
    for (name, value) in model.fields.sorted(by: { $0.key < $1.key }) {
      facts.append((name, config[name] ?? .null, value))
    }
    for (name, found, expected) in facts where found != expected {
      throw MolkvError(
        .bundle, "\(file): \(name) is \(found.shown), the manifest says \(expected.shown)",
        fix: "graph and manifest must come from one export")
    }
  }

  private func text(_ property: String?) -> JSONValue { property.map { .text($0) } ?? .null }

  /// A property that is a JSON object; empty where it is none.
  private func record(_ property: String?) -> [String: JSONValue] {
    guard let property else { return [:] }
    let content = Data(property.utf8)
    return (try? decodeJSON([String: JSONValue].self, content, file: "")) ?? [:]
  }
}
