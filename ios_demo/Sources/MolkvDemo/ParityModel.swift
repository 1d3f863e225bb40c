import MolkvKit
import Observation

/// The parity screen: whether this device computes what the bundle recorded.
@MainActor @Observable
public final class ParityModel {
  public enum Verdict: Equatable, Sendable { case passed, failed }

  public private(set) var rungs: [ParityRung] = []
  /// Nil before all rungs are climbed.
  public private(set) var verdict: Verdict?
  public private(set) var isRunning = false
  public var alert: String?

  private var task: Task<Void, Never>?

  public init() {}

  public func run(on session: MolkvSession) async {
    guard !isRunning else { return }
    isRunning = true
    rungs = []
    verdict = nil
    let task = Task {
      do {
        for try await rung in session.checkParity() { rungs.append(rung) }
        try Task.checkCancellation()
        verdict = rungs.contains { $0.passed == false } ? .failed : .passed
      } catch is CancellationError {
        // The user knows.
      } catch {
        alert = message(for: error)
      }
      isRunning = false
    }
    self.task = task
    await task.value
  }

  public func stop() { task?.cancel() }
}
