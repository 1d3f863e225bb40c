import CryptoKit
import Foundation

/// Copies bundles into the app, checked on the way; nothing half-copied ever has a bundle's name.
public struct BundleImporter: Sendable {
  /// How far an import is, in bytes.
  public struct Progress: Equatable, Sendable {
    public let done: Int64
    public let total: Int64
    /// Set by the last one: the imported bundle's folder.
    public let folder: URL?

    public var fraction: Double { total > 0 ? Double(done) / Double(total) : 1 }
  }

  let library: BundleLibrary

  public init(into library: BundleLibrary) { self.library = library }

  /// Imports a bundle's folder, as another app or the Files app hands it out.
  ///
  /// Every file is hashed while it is copied and compared with the manifest, the blob included. The
  /// copy is excluded from backups: it can be imported again. Cancelling the task that reads the
  /// stream removes what was copied. The stream throws `MolkvError`.
  public func importBundle(from source: URL) -> AsyncThrowingStream<Progress, any Error> {
    AsyncThrowingStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
      let task = Task.detached(priority: .userInitiated) {
        #if canImport(Darwin)
          // Folders from outside of the app may be read between these two only.
          let scoped = source.startAccessingSecurityScopedResource()
          defer { if scoped { source.stopAccessingSecurityScopedResource() } }
        #endif
        do {
          try copy(source) { continuation.yield($0) }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
      continuation.onTermination = { _ in task.cancel() }
    }
  }

  func copy(_ source: URL, report: (Progress) -> Void) throws {
    let manifest = try Manifest.read(folder: source)
    let target = try library.folder(named: source.lastPathComponent)
    let files = FileManager.default
    if files.fileExists(atPath: target.path) {
      throw MolkvError(
        .usage, "\(target.lastPathComponent): a bundle of this name is there",
        fix: "delete it first, or rename the new one")
    }
    let total = manifest.totalBytes
    try library.checkRoom(for: total)
    let partial = try library.newPartialFolder()
    defer { try? files.removeItem(at: partial) }
    var done: Int64 = 0
    for entry in manifest.files {
      try copy(entry, from: source, to: partial) { count in
        done += count
        report(Progress(done: done, total: total, folder: nil))
      }
    }
    try writing(partial) {
      try files.copyItem(
        at: source.appendingPathComponent(Manifest.fileName),
        to: partial.appendingPathComponent(Manifest.fileName))
    }
    _ = try MolkvBundle(folder: partial, verifyChecksums: false)
    try writing(target) {
      try files.moveItem(at: partial, to: target)
      try library.excludeFromBackup(target)
    }
    report(Progress(done: total, total: total, folder: target))
  }

  /// Copies a file part by part, and compares its size and sha256 with the manifest's.
  private func copy(
    _ entry: Manifest.File, from source: URL, to folder: URL, progress: (Int64) -> Void
  ) throws {
    let file = try ReadableFile(source.appendingPathComponent(entry.name).path)
    guard file.bytes == entry.bytes else {
      throw MolkvError(
        .bundle, "\(file.path): has \(file.bytes) bytes, the manifest says \(entry.bytes)",
        fix: "the copy is incomplete; copy the bundle again")
    }
    let target = folder.appendingPathComponent(entry.name)
    var digest = SHA256()
    try writing(target) {
      try FileManager.default.createDirectory(
        at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
      guard FileManager.default.createFile(atPath: target.path, contents: nil) else {
        throw CocoaError(.fileWriteUnknown)
      }
    }
    let output = try writing(target) { try FileHandle(forWritingTo: target) }
    defer { try? output.close() }
    try file.forEachPart { part in
      digest.update(bufferPointer: part)
      try writing(target) { try output.write(contentsOf: part) }
      progress(Int64(part.count))
    }
    let actual = hexadecimal(digest.finalize())
    guard actual == entry.sha256 else {
      throw MolkvError(
        .bundle, "\(file.path): sha256 is \(actual), the manifest says \(entry.sha256)",
        fix: "the file was changed or damaged; copy the bundle again")
    }
  }
}

/// Runs something that writes; what the system says against it is a storage error.
func writing<Result>(_ target: URL, _ body: () throws -> Result) throws -> Result {
  do {
    return try body()
  } catch let error as MolkvError {
    throw error
  } catch {
    throw MolkvError(
      .storage, "\(target.path): cannot be written: \(error.localizedDescription)",
      fix: "free some storage and try again")
  }
}
