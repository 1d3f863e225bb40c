import CMolkv
import Foundation

/// A bundle folder: opened once, checked, and then trusted (docs/graph.md, "The bundle").
public struct MolkvBundle: Sendable {
  public let folder: URL
  public let manifest: Manifest

  /// Reads the manifest and checks that every file is there and whole.
  ///
  /// The expert blob is not hashed, whatever its size: every row carries a checksum of its own,
  /// which is compared when the row is read. `verifyExperts` hashes it too.
  ///
  /// - Parameter verifyChecksums: compare the sha256 of every file but the expert blob.
  /// - Throws: `MolkvError`; `CancellationError` if the task is cancelled.
  public init(folder: URL, verifyChecksums: Bool = true) throws {
    self.folder = folder
    manifest = try Manifest.read(folder: folder)
    let experts = Set(manifest.experts)
    for entry in manifest.files { try checkSize(entry) }
    for entry in manifest.files where verifyChecksums && !experts.contains(entry.name) {
      try checkDigest(entry)
    }
  }

  /// Compares the blob's sha256 too, which takes as long as reading all of it.
  ///
  /// - Parameter progress: told the bytes of each part that was read.
  public func verifyExperts(progress: (Int64) -> Void = { _ in }) throws {
    let experts = Set(manifest.experts)
    for entry in manifest.files where experts.contains(entry.name) {
      try checkDigest(entry, progress: progress)
    }
  }

  /// The file of a name in the manifest.
  public func file(_ name: String) -> URL { folder.appendingPathComponent(name) }

  /// The expert blob, checked to belong to the dense graph; nil where the model has no experts.
  public func openExperts(readers: Int = 0) throws -> ExpertBlob? {
    guard let first = manifest.experts.first else { return nil }
    let blob = try ExpertBlob(files: manifest.experts.map { file($0).path }, readers: readers)
    try check(blob, file: file(first).path)
    return blob
  }

  /// The tokenizer, checked to be the model's; nil without one: then ids go in and come out.
  public func openTokenizer() throws -> Tokenizer? {
    guard let entry = manifest.tokenizer else { return nil }
    let path = file(entry.file).path
    let tokenizer = try Tokenizer(file: path)
    let fix = "use the tokenizer.json that the model was trained with"
    // A smaller vocabulary is fine: models often pad theirs.
    if tokenizer.vocabularySize > manifest.model.vocabularySize {
      throw MolkvError(
        .tokenizer,
        "\(path): has a vocabulary of \(tokenizer.vocabularySize) ids, and the model one of "
          + "\(manifest.model.vocabularySize)", fix: fix)
    }
    if tokenizer.tokenCount != entry.vocabularySize {
      throw MolkvError(
        .tokenizer,
        "\(path): has \(tokenizer.tokenCount) tokens, the manifest says \(entry.vocabularySize)",
        fix: fix)
    }
    return tokenizer
  }

  /// What every runtime must reproduce.
  public func loadGolden() throws -> Golden {
    try Golden.read(
      file: file(manifest.golden).path, vocabularySize: manifest.model.vocabularySize)
  }

  private func checkSize(_ entry: Manifest.File) throws {
    let opened = try ReadableFile(file(entry.name).path)
    guard opened.bytes == entry.bytes else {
      throw MolkvError(
        .bundle, "\(opened.path): has \(opened.bytes) bytes, the manifest says \(entry.bytes)",
        fix: "the copy is incomplete; copy the bundle again")
    }
  }

  private func checkDigest(_ entry: Manifest.File, progress: (Int64) -> Void = { _ in }) throws {
    let path = file(entry.name).path
    let actual = try sha256(ofFile: path, progress: progress)
    guard actual == entry.sha256 else {
      throw MolkvError(
        .bundle, "\(path): sha256 is \(actual), the manifest says \(entry.sha256)",
        fix: "the file was changed or damaged; copy the bundle again")
    }
  }

  private func check(_ blob: ExpertBlob, file: String) throws {
    let model = manifest.model
    let rows = blob.geometry
    let keys = model.architecture == .molkv
    let stored = manifest.expertPrecision == .f16 ? MOLKV_FLOAT16 : MOLKV_INT8
    let values = manifest.expertPrecision == .int4 ? MOLKV_INT4 : stored
    let facts: [(String, String, String)] = [
      ("identity", blob.identity, manifest.identity),
      ("vocabulary_size", "\(blob.vocabularySize)", "\(model.vocabularySize)"),
      ("layers", "\(rows.layers)", "\(model.layers)"),
      ("experts", "\(rows.experts)", "\(model.experts)"),
      ("key_heads", "\(rows.key_heads)", "\(keys ? model.expertQueryHeads : 0)"),
      ("key_size", "\(rows.key_size)", "\(keys ? model.expertKeySize : 0)"),
      ("value_size", "\(rows.value_size)", "\(model.hiddenSize)"),
      ("key_dtype", name(rows.key_dtype), name((keys ? stored : MOLKV_NONE).rawValue)),
      ("value_dtype", name(rows.value_dtype), name(values.rawValue)),
      (
        "embedding_dtype", name(blob.embeddingType.rawValue),
        name((manifest.embeddingPrecision == nil ? MOLKV_NONE : MOLKV_FLOAT16).rawValue)
      ),
    ]
    for (field, actual, expected) in facts where actual != expected {
      throw MolkvError(
        .bundle, "\(file): \(field) is \(actual), the dense graph's is \(expected)",
        fix: "graph and blob must come from one export")
    }
  }

  private func name(_ type: UInt32) -> String {
    switch molkv_data_type(rawValue: type) {
    case MOLKV_NONE: "none"
    case MOLKV_FLOAT32: "float32"
    case MOLKV_FLOAT16: "float16"
    case MOLKV_INT8: "int8"
    case MOLKV_INT4: "int4"
    default: "\(type)"
    }
  }
}
