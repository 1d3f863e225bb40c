import MolkvKit
import MolkvTesting
import XCTest

@testable import MolkvDemo

/// What the buttons of the screens do, on real sessions.
@MainActor
final class ScreenModelTests: XCTestCase {
  /// Lets a model's task go on until something holds.
  private func wait(until condition: () -> Bool) async throws {
    for _ in 0..<2000 where !condition() { try await Task.sleep(nanoseconds: 1_000_000) }
    XCTAssertTrue(condition())
  }

  private func greedy(_ count: Int) -> PromptModel {
    let settings = SamplingSettings()
    settings.isGreedy = true
    settings.maxNewTokens = count
    return PromptModel(settings: settings)
  }

  func testAPromptIsContinuedAsTheGoldenCaseWas() async throws {
    let session = try Fixtures.session(Fixtures.tiny)
    let recorded = try XCTUnwrap(session.bundle.loadGolden().cases.first)
    let model = greedy(recorded.greedy.count)
    model.prompt = try XCTUnwrap(recorded.text)
    await model.run(on: session)
    XCTAssertNil(model.alert)
    XCTAssertEqual(model.output, recorded.greedyText)
    XCTAssertFalse(model.isRunning)
    XCTAssertEqual(model.statistics.decodeTokens, recorded.greedy.count - 1)
    XCTAssertGreaterThan(try XCTUnwrap(model.memory).used, 1 << 20)
  }

  func testStopEndsTheTextAndKeepsWhatIsThere() async throws {
    let session = try Fixtures.session(Fixtures.tiny)
    let model = greedy(400)
    let running = Task { await model.run(on: session) }
    try await wait { model.output.count > 20 }
    XCTAssertTrue(model.isRunning)
    XCTAssertFalse(model.canRun)
    model.stop()
    await running.value
    XCTAssertFalse(model.isRunning)
    XCTAssertNil(model.alert)
    XCTAssertLessThan(model.statistics.decodeTokens, 399)
    XCTAssertFalse(model.output.isEmpty)
  }

  func testAnEmptyPromptCannotBeRun() async throws {
    let model = greedy(4)
    model.prompt = " \n"
    XCTAssertFalse(model.canRun)
  }

  func testProblemsAreShown() async throws {
    let session = try Fixtures.session(Fixtures.tiny)
    let model = greedy(4)
    model.prompt = String(repeating: "word ", count: 4000)
    await model.run(on: session)
    XCTAssertEqual(model.alert?.contains("tokens do not fit"), true)
    XCTAssertFalse(model.isRunning)
    model.alert = nil
    model.prompt = "My fellow citizens"
    model.settings.isGreedy = false
    model.settings.seed = "seven"
    await model.run(on: session)
    XCTAssertEqual(model.alert?.contains("the seed is 'seven'"), true)
  }

  func testTheSameSeedGivesTheSameText() async throws {
    let session = try Fixtures.session(Fixtures.tiny)
    var texts: [String] = []
    for seed in ["7", "7", "8"] {
      let model = greedy(24)
      model.settings.isGreedy = false
      model.settings.seed = seed
      await model.run(on: session)
      texts.append(model.output)
    }
    XCTAssertEqual(texts[0], texts[1])
    XCTAssertNotEqual(texts[0], texts[2])
  }

  func testWithoutATokenizerIdsGoInAndComeOut() async throws {
    let session = try Fixtures.session(Fixtures.small)
    let model = greedy(3)
    model.prompt = "3, 4 5"
    await model.run(on: session)
    XCTAssertEqual(model.output.split(separator: " ").compactMap { Int($0) }.count, 3)
    model.prompt = "3 four"
    await model.run(on: session)
    XCTAssertEqual(model.alert?.contains("'four' is no token id"), true)
  }

  func testParityPassesRungByRung() async throws {
    let model = ParityModel()
    await model.run(on: try Fixtures.session(Fixtures.small))
    XCTAssertEqual(model.verdict, .passed)
    XCTAssertEqual(model.rungs.count, 6)
    for rung in model.rungs { _ = RungRow(rung: rung).body }
  }

  func testParityThatIsStoppedHasNoVerdict() async throws {
    let model = ParityModel()
    let session = try Fixtures.session(Fixtures.tiny)
    let running = Task { await model.run(on: session) }
    try await wait { !model.rungs.isEmpty }
    model.stop()
    await running.value
    XCTAssertNil(model.verdict)
    XCTAssertFalse(model.isRunning)
    XCTAssertNil(model.alert)
  }

  func testABenchmarkReportsMediansAndJSON() async throws {
    let model = BenchmarkModel()
    model.promptTokens = 16
    model.newTokens = 4
    model.repetitions = 3
    await model.run(on: try Fixtures.session(Fixtures.small))
    let report = try XCTUnwrap(model.report)
    XCTAssertEqual(report.samples.count, 3)
    XCTAssertGreaterThan(report.median(\.decodeTokensPerSecond), 0)
    let json = try XCTUnwrap(model.sharedText)
    let read = try JSONDecoder().decode(Benchmark.Report.self, from: Data(json.utf8))
    XCTAssertEqual(read.samples, report.samples)
    model.promptTokens = 100_000
    await model.run(on: try Fixtures.session(Fixtures.small))
    XCTAssertEqual(model.alert?.contains("do not fit the context"), true)
    XCTAssertNil(model.report)
  }

  func testFiguresReadTheSameEverywhere() async {
    XCTAssertEqual(Figures.bytes(1000), "1000 B")
    XCTAssertEqual(Figures.bytes(1536), "1.5 KiB")
    XCTAssertEqual(Figures.bytes(3 << 30), "3.0 GiB")
    XCTAssertEqual(Figures.milliseconds(0.0125), "12.5 ms")
    XCTAssertEqual(Figures.rate(41.26), "41.3 tokens/s")
    XCTAssertEqual(Figures.percent(0.5), "50.0 %")
  }
}
