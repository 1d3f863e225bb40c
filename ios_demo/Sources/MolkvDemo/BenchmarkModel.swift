import Foundation
import MolkvKit
import Observation

/// The benchmark screen: the same work some times over.
@MainActor @Observable
public final class BenchmarkModel {
  public var promptTokens = 128
  public var newTokens = 64
  public var repetitions = 5
  public private(set) var report: Benchmark.Report?
  /// From 0 to 1 while it runs.
  public private(set) var progress: Double?
  public var alert: String?

  private var task: Task<Void, Never>?

  public init() {}

  public var isRunning: Bool { progress != nil }

  public func run(on session: MolkvSession) async {
    guard !isRunning else { return }
    report = nil
    progress = 0
    let benchmark = Benchmark(
      promptTokens: promptTokens, newTokens: newTokens, repetitions: repetitions)
    let task = Task {
      do {
        report = try await benchmark.run(session) { done, total in
          await MainActor.run { self.progress = Double(done) / Double(total) }
        }
      } catch is CancellationError {
        // The user knows.
      } catch {
        alert = message(for: error)
      }
      progress = nil
    }
    self.task = task
    await task.value
  }

  public func stop() { task?.cancel() }

  /// The report as JSON, to share.
  public var sharedText: String? {
    guard let report, let json = try? report.json() else { return nil }
    return String(decoding: json, as: UTF8.self)
  }
}
