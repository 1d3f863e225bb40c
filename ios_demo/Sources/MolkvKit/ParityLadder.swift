import Foundation

/// One rung of the parity ladder: `figure` was measured, and passes if it is at most `limit`.
public struct ParityRung: Sendable, Equatable, Identifiable {
  public let name: String
  public let figure: Double
  public let limit: Double
  public let detail: String
  /// Nil where the golden answers are not this graph's, and `detail` says why.
  public let passed: Bool?

  public var id: String { name }

  init(_ name: String, _ figure: Double, atMost limit: Double, _ detail: String) {
    self.name = name
    self.figure = figure
    self.limit = limit
    self.detail = detail
    passed = figure <= limit
  }

  init(notComparable name: String, because detail: String) {
    self.name = name
    self.detail = detail
    figure = 0
    limit = 0
    passed = nil
  }
}

/// Whether this device computes what the bundle's golden cases recorded (docs/graph.md, "The parity
/// ladder"; docs/ios.md for Core ML).
struct ParityLadder {
  /// A float16 graph's tolerance as a multiple of the golden one, which is float32's.
  static let float16Factor = 300.0
  /// The same where activations are rounded to int8.
  static let roundedFactor = 2500.0

  let model: Manifest.Model
  let backend: Manifest.Backend
  let golden: Golden
  let graph: any DenseGraph
  let blob: ExpertBlob?
  let tokenizer: Tokenizer?
  let chunk: Int

  /// Hands out each rung as it is done.
  func climb(take: (ParityRung) -> Void) throws {
    if let blob {
      for rung in try rows(blob) { take(rung) }
    }
    take(try chunks())
    take(try recordedLogits())
    if let tokenizer { take(try texts(tokenizer)) }
    switch precision {
    case .float32:
      take(try tokens("6 greedy tokens") { (.greedy, $0.greedy) })
      take(try tokens("6 sampled tokens") { ($0.sampled.sampling, $0.sampled.tokenIDs) })
    case .float16: take(try goldenTokens())
    case .compressed: take(notComparable("6 greedy tokens"))
    }
  }

  private enum Precision { case float32, float16, compressed }

  /// How near to the golden answers, which are float32's, this graph can be.
  private var precision: Precision {
    switch (backend.dense, backend.cache) {
    case (.fp32, .fp32): .float32
    case (.fp16, .fp16): .float16
    default: .compressed
    }
  }

  private var factor: Double {
    if precision == .float32 { return 1 }
    return backend.cache == .fp16 ? Self.float16Factor : Self.roundedFactor
  }

  private func notComparable(_ name: String) -> ParityRung {
    ParityRung(
      notComparable: name,
      because: "dense weights are \(backend.dense), the self-attention cache is \(backend.cache), "
        + "and the golden answers float32's: the exporter compared them with torch "
        + "(molkv verify --checkpoint)")
  }

  /// The golden rows' bytes, and the numbers that they stand for.
  private func rows(_ blob: ExpertBlob) throws -> [ParityRung] {
    var bytes = 0
    var numbers = 0
    for recorded in golden.rows {
      try Task.checkCancellation()
      let row = try blob.row(of: recorded.tokenID)
      let digest = row[..<blob.rowSize].withUnsafeBytes { sha256($0) }
      bytes += digest == recorded.bytesSHA256 ? 0 : 1
      numbers += try blob.dequantizedSHA256(of: row) == recorded.dequantizedSHA256 ? 0 : 1
    }
    let detail = "\(golden.rows.count) rows"
    return [
      ParityRung("1 row bytes: golden = reader", Double(bytes), atMost: 0, detail),
      ParityRung("2 dequantized rows: golden = reader", Double(numbers), atMost: 0, detail),
    ]
  }

  /// Prefill of the longest prompt, and of beginnings of it, in one chunk and in many.
  private func chunks() throws -> ParityRung {
    let longest = golden.cases.max { $0.promptIDs.count < $1.promptIDs.count }!
    let count = longest.promptIDs.count
    let lengths = Set([model.expertWindow, model.expertWindow + 1, count / 2, count])
      .filter { $0 > 0 && $0 <= count }.sorted()
    var worst = 0.0
    for length in lengths {
      let ids = Array(longest.promptIDs[..<length])
      let whole = try logits(after: ids, chunk: length)
      for size in [1, 7, 64] {
        let parts = try logits(after: ids, chunk: size)
        worst = zip(parts, whole).reduce(worst) { max($0, difference($1.0, $1.1)) }
      }
    }
    return ParityRung(
      "4 prefill in chunks", worst, atMost: factor * longest.logitsTolerance,
      lengths.map(String.init).joined(separator: ", ") + " tokens in chunks of 1, 7, 64")
  }

  /// Of all prompts, the figure that is the largest part of its limit.
  private func recordedLogits() throws -> ParityRung {
    let name = "5 logits: recorded"
    if precision == .compressed { return notComparable(name) }
    let pairs = try golden.cases.map { recorded in
      let logits = try logits(after: recorded.promptIDs, chunk: chunk)
      return (distance(logits, recorded.logits), factor * recorded.logitsTolerance)
    }
    return nearestToLimit(name, pairs, "\(golden.cases.count) prompts")
  }

  /// Whether texts become the recorded ids, and recorded ids the recorded texts.
  private func texts(_ tokenizer: Tokenizer) throws -> ParityRung {
    let changed = try golden.cases.filter { recorded in
      let encodes = try recorded.text.map { try tokenizer.encode($0) == recorded.promptIDs }
      let decoded = try tokenizer.decode(recorded.greedy)
      return encodes == false || decoded != recorded.greedyText
    }
    return ParityRung(
      "6 tokenizer", Double(changed.count), atMost: 0, "\(golden.cases.count) prompts")
  }

  private func tokens(_ name: String, _ choose: (Golden.Case) -> (Sampling, [TokenID])) throws
    -> ParityRung
  {
    var changed = 0
    var count = 0
    for recorded in golden.cases {
      let (sampling, expected) = choose(recorded)
      let sampler = try Sampler(sampling)
      let sequence = try makeSequence(chunk: chunk)
      var logits = try prefill(recorded.promptIDs, into: sequence)
      var generated: [TokenID] = []
      while generated.count < expected.count {
        try Task.checkCancellation()
        generated.append(try sampler.sample(logits))
        if generated.count < expected.count { logits = try sequence.step(generated.last!) }
      }
      changed += generated == expected ? 0 : 1
      count += expected.count
    }
    return ParityRung(
      name, Double(changed), atMost: 0, "\(golden.cases.count) prompts, \(count) tokens")
  }

  /// The recorded tokens; each may only be as far below our best as two errors allow.
  private func goldenTokens() throws -> ParityRung {
    let pairs = try golden.cases.map { recorded in
      let sequence = try makeSequence(chunk: chunk)
      var logits = try prefill(recorded.promptIDs, into: sequence)
      var worst = 0.0
      for (place, token) in recorded.greedy.enumerated() {
        try Task.checkCancellation()
        worst = max(worst, difference(logits.max()!, logits[Int(token)]))
        if place + 1 < recorded.greedy.count { logits = try sequence.step(token) }
      }
      return (worst, 2 * factor * recorded.logitsTolerance)
    }
    let count = golden.cases.reduce(0) { $0 + $1.greedy.count }
    return nearestToLimit("6 greedy tokens: below the best logit", pairs, "\(count) tokens")
  }

  private func makeSequence(chunk: Int) throws -> TokenSequence {
    try TokenSequence(model: model, graph: graph, blob: blob, chunk: chunk)
  }

  private func prefill(_ ids: [TokenID], into sequence: TokenSequence) throws
    -> UnsafeBufferPointer<Float>
  {
    var prefill = try sequence.beginPrefill(ids)
    while true {
      try Task.checkCancellation()
      let logits = try sequence.run(&prefill)
      if prefill.isDone { return logits }
    }
  }

  private func logits(after ids: [TokenID], chunk: Int) throws -> [Float] {
    // Other ids come first: what an earlier run of these left in the cache would stand in for a
    // write that is missing.
    let others = ids.map { ($0 + 1) % TokenID(model.vocabularySize) }
    _ = try prefill(others, into: makeSequence(chunk: self.chunk))
    return Array(try prefill(ids, into: makeSequence(chunk: chunk)))
  }

  private func distance(_ logits: [Float], _ recorded: Golden.Logits) -> Double {
    let count = Double(logits.count)
    let mean = logits.reduce(0.0) { $0 + Double($1) } / count
    let squares = logits.reduce(0.0) { $0 + Double($1) * Double($1) } / count
    let sums = max(
      difference(mean, recorded.mean), difference(squares.squareRoot(), recorded.rootMeanSquare))
    return zip(recorded.tokenIDs, recorded.values).reduce(sums) {
      max($0, difference(Double(logits[Int($1.0)]), $1.1))
    }
  }

  private func nearestToLimit(_ name: String, _ pairs: [(Double, Double)], _ detail: String)
    -> ParityRung
  {
    let (figure, limit) = pairs.max { $0.0 / $0.1 < $1.0 / $1.1 }!
    return ParityRung(name, figure, atMost: limit, detail)
  }
}

/// Infinity for NaN, which would otherwise compare as no difference at all.
private func difference(_ ours: some BinaryFloatingPoint, _ theirs: some BinaryFloatingPoint)
  -> Double
{
  let difference = abs(Double(ours) - Double(theirs))
  return difference.isNaN ? .infinity : difference
}
