import Foundation
import MolkvKit
import Observation

/// The prompt screen: text in, text out, token by token.
@MainActor @Observable
public final class PromptModel {
  public var prompt = "My fellow citizens"
  public private(set) var output = ""
  public private(set) var isRunning = false
  public private(set) var statistics = SessionStatistics()
  public private(set) var memory: ProcessMemory?
  public var alert: String?
  public let settings: SamplingSettings

  private var task: Task<Void, Never>?

  public init(settings: SamplingSettings) { self.settings = settings }

  public var canRun: Bool {
    !isRunning && !prompt.trimmingCharacters(in: .whitespacesAndNewlines).isEmpty
  }

  /// Continues the prompt until it ends or is stopped.
  public func run(on session: MolkvSession) async {
    guard canRun else { return }
    output = ""
    isRunning = true
    let task = Task {
      do {
        let request = GenerationRequest(
          prompt: try input(for: session), maxNewTokens: settings.maxNewTokens,
          sampling: try settings.sampling())
        for try await token in session.generate(request) {
          output += session.tokenizer == nil ? "\(token.id) " : token.text
          await look(at: session)
        }
      } catch {
        alert = message(for: error)
      }
      await look(at: session)
      isRunning = false
    }
    self.task = task
    await task.value
  }

  /// Stops before the next token; what was generated stays.
  public func stop() { task?.cancel() }

  private func look(at session: MolkvSession) async {
    statistics = await session.statistics
    memory = ProcessMemory.now()
  }

  /// Without a tokenizer, numbers go in and numbers come out.
  private func input(for session: MolkvSession) throws -> GenerationRequest.Prompt {
    if session.tokenizer != nil { return .text(prompt) }
    let ids = try prompt.split(whereSeparator: { $0 == " " || $0 == "," || $0.isNewline }).map {
      guard let id = TokenID($0) else {
        throw MolkvError(
          .tokenizer, "this bundle has no tokenizer, and '\($0)' is no token id",
          fix: "give numbers, or export with a tokenizer")
      }
      return id
    }
    return .tokenIDs(ids)
  }
}
