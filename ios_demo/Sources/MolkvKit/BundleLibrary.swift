import Foundation

/// The bundles that the app keeps: one folder each, beside each other.
public struct BundleLibrary: Sendable {
  static let partialPrefix = ".partial-"

  let folder: URL

  /// - Parameter folder: made when something is imported.
  public init(folder: URL) { self.folder = folder }

  /// In Application Support, which the user does not see and the system does not empty.
  public static var applicationSupport: BundleLibrary {
    let support = FileManager.default.urls(
      for: .applicationSupportDirectory, in: .userDomainMask)[0]
    return BundleLibrary(folder: support.appendingPathComponent("bundles"))
  }

  /// The folders of all bundles, by name; imports that were interrupted are removed.
  public func bundles() throws -> [URL] {
    let files = FileManager.default
    guard files.fileExists(atPath: folder.path) else { return [] }
    let names = try writing(folder) { try files.contentsOfDirectory(atPath: folder.path) }
    for name in names where name.hasPrefix(Self.partialPrefix) {
      // Others are being imported by this very process.
      if !name.hasPrefix(Self.partialPrefix + Self.process) {
        try? files.removeItem(at: folder.appendingPathComponent(name))
      }
    }
    return names.filter { !$0.hasPrefix(".") }.sorted().map { folder.appendingPathComponent($0) }
  }

  public func delete(_ bundle: URL) throws {
    let name = bundle.lastPathComponent
    let target = try folder(named: name)
    try writing(target) { try FileManager.default.removeItem(at: target) }
  }

  func folder(named name: String) throws -> URL {
    if name.isEmpty || name.hasPrefix(".") || name.contains("/") {
      throw MolkvError(.usage, "'\(name)' is no name for a bundle", fix: "rename the folder")
    }
    return folder.appendingPathComponent(name)
  }

  func newPartialFolder() throws -> URL {
    let partial = folder.appendingPathComponent(
      "\(Self.partialPrefix)\(Self.process)-\(UUID().uuidString)")
    try writing(partial) {
      try FileManager.default.createDirectory(at: partial, withIntermediateDirectories: true)
    }
    return partial
  }

  /// - Throws: `MolkvError.Kind.storage` if a bundle would fill the storage to the brim.
  func checkRoom(for bytes: Int64) throws {
    try writing(folder) {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }
    let attributes = try writing(folder) {
      try FileManager.default.attributesOfFileSystem(forPath: folder.path)
    }
    let spare: Int64 = 64 << 20
    guard let free = (attributes[.systemFreeSize] as? NSNumber)?.int64Value else { return }
    if bytes > free - spare {
      throw MolkvError(
        .storage, "the bundle has \(bytes) bytes, and \(max(0, free - spare)) are free",
        fix: "free some storage and try again")
    }
  }

  func excludeFromBackup(_ bundle: URL) throws {
    #if canImport(Darwin)
      var values = URLResourceValues()
      values.isExcludedFromBackup = true
      var bundle = bundle
      try bundle.setResourceValues(values)
    #endif
  }

  private static let process = "\(ProcessInfo.processInfo.processIdentifier)"
}
