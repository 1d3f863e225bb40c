import Foundation

/// `manifest.json`: what a bundle holds and for which model (docs/graph.md, "manifest.json").
public struct Manifest: Sendable {
  static let fileName = "manifest.json"
  static let schemaVersion = 1

  /// A file of the bundle.
  public struct File: Sendable {
    public let name: String
    public let bytes: Int64
    /// In hexadecimal.
    public let sha256: String
  }

  /// The hyper-parameters that a runtime needs.
  public struct Model: Sendable {
    public enum Architecture: String, Sendable, Decodable {
      case dense, mole, molkv
    }

    public let architecture: Architecture
    public let vocabularySize: Int
    public let hiddenSize: Int
    public let layers: Int
    public let attentionHeads: Int
    public let keyValueHeads: Int
    /// The most tokens of a sequence.
    public let context: Int
    public let experts: Int
    public let expertKeySize: Int
    public let expertQueryHeads: Int
    public let expertWindow: Int
    /// All fields as written, to compare with the graph's own.
    let fields: [String: JSONValue]
  }

  /// Precision of the expert rows.
  public enum ExpertPrecision: String, Sendable, Decodable {
    case int8, int4, f16
  }

  /// Precision of the input embedding that every row carries.
  public enum EmbeddingPrecision: String, Sendable, Decodable {
    case f16
  }

  /// The sizes that a graph was compiled for.
  public struct Limits: Sendable {
    /// The most new tokens of one call.
    public let chunk: Int
    /// The most tokens of a sequence.
    public let context: Int
    /// Positions of the self-attention cache.
    public let cacheTokens: Int
    /// W, or 0 without experts.
    public let window: Int
  }

  /// One backend's dense graph and what it needs to run.
  public struct Backend: Sendable {
    public enum DensePrecision: String, Sendable, Decodable {
      case fp32, fp16, int8, int4, palettized4
    }
    public enum CachePrecision: String, Sendable, Decodable {
      case fp32, fp16, int8
    }

    /// A file, or a folder whose files are listed one by one.
    public let graph: String
    public let dense: DensePrecision
    public let cache: CachePrecision
    /// Operator sets, or single operators, with their versions.
    public let operators: [String: Int]
    public let delegates: [String]
    /// Nil where the graph takes any size.
    public let limits: Limits?
    /// What to load a Core ML graph for; nil for the others.
    public let computeUnits: String?
  }

  public struct Tokenizer: Sendable {
    public let file: String
    public let vocabularySize: Int
  }

  /// The exporter's verdict.
  public struct Parity: Sendable {
    public let passed: Bool
    public let rungs: Int
  }

  public let producer: [String: String]
  /// sha256 over the checkpoint's weights, in hexadecimal; graph and blob carry it too.
  public let identity: String
  public let model: Model
  /// Nil without experts.
  public let expertPrecision: ExpertPrecision?
  /// Nil where the dense graphs have the embedding.
  public let embeddingPrecision: EmbeddingPrecision?
  /// The blob's files.
  public let experts: [String]
  public let backends: [String: Backend]
  public let tokenizer: Tokenizer?
  public let golden: String
  public let files: [File]
  public let parity: Parity?

  /// Bytes of all files.
  public var totalBytes: Int64 { files.reduce(0) { $0 + $1.bytes } }

  /// What the manifest says about a backend.
  ///
  /// - Throws: `MolkvError.Kind.bundle` if the bundle has no graph for it.
  public func backend(_ name: String) throws -> Backend {
    if let backend = backends[name] { return backend }
    let there = backends.keys.sorted().joined(separator: ", ")
    throw MolkvError(
      .bundle, "\(Self.fileName): has no \(name) graph, only \(there)",
      fix: "export with --backend \(name)")
  }

  /// Reads and checks a bundle's manifest.
  ///
  /// - Throws: `MolkvError` if it is missing, no JSON, of another version, or names files outside
  ///   of the folder.
  public static func read(folder: URL) throws -> Manifest {
    let file = folder.appendingPathComponent(fileName).path
    let content = try readFile(file, limit: 64 << 20)
    let version = try decodeJSON(Versioned.self, content, file: file).schemaVersion
    guard version == schemaVersion else {
      throw MolkvError(
        .bundle, "\(file): schema_version is \(version), this app reads \(schemaVersion)",
        fix: version > schemaVersion ? "update molkv" : "export again")
    }
    let manifest = try decodeJSON(Manifest.self, content, file: file)
    try manifest.checkExperts(file)
    try manifest.checkNames(file)
    return manifest
  }

  private struct Versioned: Decodable {
    enum CodingKeys: String, CodingKey { case schemaVersion = "schema_version" }
    let schemaVersion: Int
  }

  private func checkExperts(_ file: String) throws {
    if let embeddingPrecision, experts.isEmpty || expertPrecision == nil {
      throw MolkvError(
        .bundle,
        "\(file): quantization.embedding is \(embeddingPrecision), but there are no expert rows "
          + "that carry it", fix: "export again")
    }
    if (model.architecture == .dense) != (expertPrecision == nil)
      || experts.isEmpty != (expertPrecision == nil)
    {
      throw MolkvError(
        .bundle, "\(file): experts: a \(model.architecture) model has other experts",
        fix: "export again")
    }
  }

  private func checkNames(_ file: String) throws {
    let graphs = Set(backends.values.map(\.graph))
    for entry in files {
      if !Self.staysInside(entry.name, graphs: graphs) {
        throw MolkvError(
          .bundle, "\(file): file name '\(entry.name.prefix(200))' is not a bare name",
          fix: "a bundle names files of its own folder only; export again")
      }
      if entry.bytes < 0 {
        throw MolkvError(
          .bundle, "\(file): bytes of '\(entry.name)' is \(entry.bytes)", fix: "export again")
      }
    }
    var listed = Set(files.map(\.name))
    if listed.count != files.count {
      throw MolkvError(.bundle, "\(file): files lists a name twice", fix: "export again")
    }
    // A graph that is a folder is there if a file of it is.
    listed.formUnion(files.compactMap { $0.name.split(separator: "/").first.map(String.init) })
    let named = experts + [golden] + graphs + (tokenizer.map { [$0.file] } ?? [])
    if let missing = named.filter({ !listed.contains($0) }).min() {
      throw MolkvError(.bundle, "\(file): files does not list '\(missing)'", fix: "export again")
    }
  }

  /// Whether a name is bare, or that of a file in a graph that is a folder.
  private static func staysInside(_ name: String, graphs: Set<String>) -> Bool {
    let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    let bare = parts.allSatisfy {
      !$0.isEmpty && $0 != "." && $0 != ".." && !$0.utf8.contains(0)
    }
    return bare && (parts.count == 1 || graphs.contains(parts[0]))
  }
}

extension Manifest: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case schemaVersion = "schema_version"
    case producer, identity, model, quantization, experts, backends, tokenizer, golden, files
    case parity
  }

  private struct Quantization: Decodable {
    enum CodingKeys: String, CodingKey, CaseIterable { case experts, embedding, calibration }
    let experts: ExpertPrecision?
    let embedding: EmbeddingPrecision?
    init(from decoder: any Decoder) throws {
      let fields = try StrictFields<CodingKeys>(decoder)
      experts = try fields[nullable: .experts]
      embedding = try fields[optional: .embedding]
      let _: Calibration? = try fields[optional: .calibration]
    }
  }

  /// How the precision of the experts was chosen: read strictly, but not used.
  private struct Calibration: Decodable {
    enum CodingKeys: String, CodingKey, CaseIterable {
      case maxKL = "max_kl"
      case klDivergence = "kl_divergence"
      case sameTop1 = "same_top1"
      case tokens
    }
    init(from decoder: any Decoder) throws {
      let fields = try StrictFields<CodingKeys>(decoder)
      for key in [CodingKeys.maxKL, .klDivergence, .sameTop1] {
        let _: Double = try fields[key]
      }
      let _: Int = try fields[.tokens]
    }
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    producer = try fields[.producer]
    identity = try fields[.identity]
    model = try fields[.model]
    let quantization: Quantization = try fields[.quantization]
    expertPrecision = quantization.experts
    embeddingPrecision = quantization.embedding
    experts = try fields[.experts]
    backends = try fields[.backends]
    tokenizer = try fields[nullable: .tokenizer]
    golden = try fields[.golden]
    files = try fields[.files]
    parity = try fields[optional: .parity]
  }
}

extension Manifest.File: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable { case name, bytes, sha256 }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    name = try fields[.name]
    bytes = try fields[.bytes]
    sha256 = try fields[.sha256]
  }
}

extension Manifest.Model: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case modelType = "model_type"
    case architecture
    case vocabularySize = "vocab_size"
    case hiddenSize = "hidden_size"
    case intermediateSize = "intermediate_size"
    case layers = "num_hidden_layers"
    case attentionHeads = "num_attention_heads"
    case keyValueHeads = "num_key_value_heads"
    case context = "max_position_embeddings"
    case ropeTheta = "rope_theta"
    case rmsNormEpsilon = "rms_norm_eps"
    case tieWordEmbeddings = "tie_word_embeddings"
    case feedForward = "feed_forward"
    case experts = "num_experts"
    case expertIntermediateSize = "expert_intermediate_size"
    case expertKeySize = "expert_key_size"
    case expertQueryHeads = "expert_query_heads"
    case expertWindow = "expert_window"
    case expertScoring = "expert_scoring"
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    architecture = try fields[.architecture]
    vocabularySize = try fields[.vocabularySize]
    hiddenSize = try fields[.hiddenSize]
    layers = try fields[.layers]
    attentionHeads = try fields[.attentionHeads]
    keyValueHeads = try fields[.keyValueHeads]
    context = try fields[.context]
    experts = try fields[.experts]
    expertKeySize = try fields[.expertKeySize]
    expertQueryHeads = try fields[.expertQueryHeads]
    expertWindow = try fields[.expertWindow]
    // The graph has the rest inside.
    for key in [CodingKeys.modelType, .feedForward, .expertScoring] {
      let _: String = try fields[key]
    }
    for key in [CodingKeys.intermediateSize, .expertIntermediateSize] {
      let _: Int = try fields[key]
    }
    for key in [CodingKeys.ropeTheta, .rmsNormEpsilon] {
      let _: Double = try fields[key]
    }
    let _: Bool = try fields[.tieWordEmbeddings]
    self.fields = try decoder.singleValueContainer().decode([String: JSONValue].self)
  }
}

extension Manifest.Limits: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case chunk, context
    case cacheTokens = "cache_tokens"
    case window
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    chunk = try fields[.chunk]
    context = try fields[.context]
    cacheTokens = try fields[.cacheTokens]
    window = try fields[.window]
  }
}

extension Manifest.Backend: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case graph, dense, cache, operators, delegates, limits
    case computeUnits = "compute_units"
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    graph = try fields[.graph]
    dense = try fields[.dense]
    cache = try fields[.cache]
    operators = try fields[.operators]
    delegates = try fields[.delegates]
    limits = try fields[nullable: .limits]
    computeUnits = try fields[nullable: .computeUnits]
  }
}

extension Manifest.Tokenizer: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case file
    case vocabularySize = "vocabulary_size"
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    file = try fields[.file]
    vocabularySize = try fields[.vocabularySize]
  }
}

extension Manifest.Parity: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable { case passed, rungs }

  private struct Rung: Decodable {
    enum CodingKeys: String, CodingKey, CaseIterable {
      case name, passed, figure, limit
      case atLeast = "at_least"
      case detail
    }

    init(from decoder: any Decoder) throws {
      let fields = try StrictFields<CodingKeys>(decoder)
      let _: String = try fields[.name]
      let _: Bool = try fields[.passed]
      let _: Double = try fields[.figure]
      let _: Double = try fields[.limit]
      let _: Bool? = try fields[optional: .atLeast]
      let _: String? = try fields[optional: .detail]
    }
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    passed = try fields[.passed]
    rungs = try (fields[.rungs] as [Rung]).count
  }
}
