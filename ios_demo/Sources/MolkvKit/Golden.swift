import Foundation

/// `golden.json`: what every runtime must reproduce from a bundle (docs/graph.md, "golden.json").
public struct Golden: Sendable {
  /// The reference's logits after a prompt: the largest, and two sums over the whole vocabulary.
  public struct Logits: Sendable {
    public let tokenIDs: [TokenID]
    public let values: [Double]
    public let mean: Double
    public let rootMeanSquare: Double
  }

  /// A seeded run of the sampler.
  public struct Sampled: Sendable {
    public let sampling: Sampling
    public let tokenIDs: [TokenID]
  }

  public struct Case: Sendable {
    public let name: String
    /// Nil where the bundle has no tokenizer.
    public let text: String?
    public let promptIDs: [TokenID]
    /// The largest difference from the reference's logits that passes, for float32 graphs.
    public let logitsTolerance: Double
    public let logits: Logits
    public let greedy: [TokenID]
    public let greedyText: String?
    public let sampled: Sampled
  }

  /// A row of the blob.
  public struct Row: Sendable {
    public let tokenID: TokenID
    /// Of the row without its padding.
    public let bytesSHA256: String
    /// Of its vectors as float32, little-endian: by layer keys, then values.
    public let dequantizedSHA256: String
  }

  public let cases: [Case]
  public let rows: [Row]

  /// Reads the file; every token id must lie below `vocabularySize`.
  ///
  /// - Throws: `MolkvError.Kind.bundle` if it is missing, damaged, of another version or model.
  static func read(file: String, vocabularySize: Int) throws -> Golden {
    let content = try readFile(file, limit: 256 << 20)
    let golden = try decodeJSON(Golden.self, content, file: file)
    if golden.cases.isEmpty {
      throw MolkvError(.bundle, "\(file): cases is empty", fix: "export again")
    }
    let ids =
      golden.cases.flatMap { [$0.promptIDs, $0.logits.tokenIDs, $0.greedy, $0.sampled.tokenIDs] }
      + [golden.rows.map(\.tokenID)]
    for id in ids.joined() where id < 0 || id >= vocabularySize {
      throw MolkvError(
        .bundle,
        "\(file): token id \(id) is outside the vocabulary, 0 to \(vocabularySize - 1)",
        fix: "graph and golden cases must come from one export")
    }
    return golden
  }
}

extension Golden: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case schemaVersion = "schema_version"
    case cases, rows
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    let version: Int = try fields[.schemaVersion]
    guard version == 1 else {
      throw fields.refusal(.schemaVersion, "schema_version is \(version), this app reads 1")
    }
    cases = try fields[.cases]
    rows = try fields[.rows]
  }
}

extension Golden.Case: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case name, text
    case promptIDs = "prompt_ids"
    case logitsTolerance = "logits_tolerance"
    case logits, greedy
    case greedyMargin = "greedy_margin"
    case greedyText = "greedy_text"
    case sampled
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    name = try fields[.name]
    text = try fields[nullable: .text]
    promptIDs = try fields[.promptIDs]
    logitsTolerance = try fields[.logitsTolerance]
    guard logitsTolerance > 0 else { throw fields.refusal(.logitsTolerance, "is not above 0") }
    guard !promptIDs.isEmpty else { throw fields.refusal(.promptIDs, "is empty") }
    logits = try fields[.logits]
    greedy = try fields[.greedy]
    let _: Double = try fields[.greedyMargin]
    greedyText = try fields[nullable: .greedyText]
    sampled = try fields[.sampled]
  }
}

extension Golden.Logits: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case tokenIDs = "token_ids"
    case values, mean
    case rootMeanSquare = "root_mean_square"
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    tokenIDs = try fields[.tokenIDs]
    values = try fields[.values]
    mean = try fields[.mean]
    rootMeanSquare = try fields[.rootMeanSquare]
    guard tokenIDs.count == values.count else {
      throw fields.refusal(.values, "has not as many elements as token_ids")
    }
  }
}

extension Golden.Sampled: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case temperature
    case topK = "top_k"
    case topP = "top_p"
    case minP = "min_p"
    case seed
    case tokenIDs = "token_ids"
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    sampling = Sampling(
      temperature: try fields[.temperature], topK: try fields[.topK], topP: try fields[.topP],
      minP: try fields[.minP], seed: try fields[.seed])
    tokenIDs = try fields[.tokenIDs]
  }
}

extension Golden.Row: Decodable {
  private enum CodingKeys: String, CodingKey, CaseIterable {
    case tokenID = "token_id"
    case bytesSHA256 = "bytes_sha256"
    case dequantizedSHA256 = "dequantized_sha256"
  }

  public init(from decoder: any Decoder) throws {
    let fields = try StrictFields<CodingKeys>(decoder)
    tokenID = try fields[.tokenID]
    bytesSHA256 = try fields[.bytesSHA256]
    dequantizedSHA256 = try fields[.dequantizedSHA256]
  }
}
