import Foundation
import MolkvKit
import Observation

/// Opens a session for a bundle: on Core ML in the app, on another engine in tests.
public typealias OpenSession = @Sendable (MolkvBundle) async throws -> MolkvSession

/// What the whole app shares: the bundles, and the session of the chosen one.
@MainActor @Observable
public final class AppModel {
  /// A bundle that can be chosen.
  public struct Choice: Identifiable, Equatable, Sendable {
    public let name: String
    public let folder: URL
    /// Came with the app, so it cannot be deleted.
    public let isBuiltIn: Bool

    public var id: String { folder.path }
  }

  /// What the app can do now.
  public enum Phase {
    case empty
    case loading(Choice)
    case ready(Choice, MolkvSession)
    case failed(Choice, String)
  }

  public private(set) var phase = Phase.empty
  public private(set) var choices: [Choice] = []
  /// From 0 to 1 while a bundle is being imported.
  public private(set) var importProgress: Double?
  /// What to tell the user; set to nil when it was read.
  public var alert: String?

  private let library: BundleLibrary
  private let builtIn: URL?
  private let open: OpenSession
  private var loading: Task<Void, Never>?
  private var importing: Task<Void, Never>?

  /// - Parameters:
  ///   - builtIn: the folder of the bundle that came with the app.
  public init(library: BundleLibrary, builtIn: URL?, open: @escaping OpenSession) {
    self.library = library
    self.builtIn = builtIn
    self.open = open
  }

  /// The app's own: bundles in Application Support, graphs on Core ML.
  public static func app() -> AppModel {
    AppModel(
      library: .applicationSupport,
      builtIn: Bundle.main.url(forResource: "DefaultBundle", withExtension: nil)
    ) { bundle in
      try MolkvSession(bundle: bundle, graph: await CoreMLGraph.load(bundle), backend: "coreml")
    }
  }

  public var session: MolkvSession? {
    if case .ready(_, let session) = phase { session } else { nil }
  }

  public var chosen: Choice? {
    switch phase {
    case .empty: nil
    case .loading(let choice), .ready(let choice, _), .failed(let choice, _): choice
    }
  }

  /// Lists the bundles and opens the first.
  public func start() async {
    refresh()
    if chosen == nil, let first = choices.first { await choose(first) }
  }

  /// Opens a bundle in place of the one that is open.
  public func choose(_ choice: Choice) async {
    loading?.cancel()
    phase = .loading(choice)
    let open = open
    let task = Task {
      do {
        // Checking and loading take seconds, which are not the main actor's.
        let session = try await Task.detached(priority: .userInitiated) {
          try await open(MolkvBundle(folder: choice.folder))
        }.value
        if !Task.isCancelled { phase = .ready(choice, session) }
      } catch {
        if !Task.isCancelled { phase = .failed(choice, message(for: error)) }
      }
    }
    loading = task
    await task.value
  }

  /// Copies a bundle's folder into the app and opens it.
  public func importBundle(from source: URL) async {
    guard importing == nil else { return }
    importProgress = 0
    let task = Task {
      var imported: URL?
      do {
        for try await progress in BundleImporter(into: library).importBundle(from: source) {
          importProgress = progress.fraction
          imported = progress.folder ?? imported
        }
      } catch is CancellationError {
        // The user knows.
      } catch {
        alert = message(for: error)
      }
      importProgress = nil
      importing = nil
      refresh()
      if let imported, let choice = choices.first(where: { $0.name == imported.lastPathComponent })
      {
        await choose(choice)
      }
    }
    importing = task
    await task.value
  }

  public func cancelImport() { importing?.cancel() }

  /// Deletes an imported bundle; the next one is opened if it was the open one.
  public func delete(_ choice: Choice) async {
    guard !choice.isBuiltIn else { return }
    let wasChosen = chosen == choice
    if wasChosen {
      loading?.cancel()
      phase = .empty
    }
    do {
      try library.delete(choice.folder)
    } catch {
      alert = message(for: error)
    }
    refresh()
    if wasChosen, let first = choices.first { await choose(first) }
  }

  private func refresh() {
    var found = [builtIn].compactMap { $0 }.map {
      Choice(name: "Built in", folder: $0, isBuiltIn: true)
    }
    do {
      found += try library.bundles().map {
        Choice(name: $0.lastPathComponent, folder: $0, isBuiltIn: false)
      }
    } catch {
      alert = message(for: error)
    }
    choices = found
  }
}

/// An error in words for the user: what is wrong and what to do.
func message(for error: any Error) -> String {
  (error as? MolkvError)?.description ?? error.localizedDescription
}
