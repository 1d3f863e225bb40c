import MolkvKit
import MolkvTesting
import XCTest

/// What `generate` promises, on the small model.
final class GenerationTests: XCTestCase {
  private let prompt: [TokenID] = Array(3..<40)

  private func request(
    _ count: Int, prompt: [TokenID]? = nil, stopIDs: Set<TokenID>? = []
  ) -> GenerationRequest {
    GenerationRequest(
      prompt: .tokenIDs(prompt ?? self.prompt), maxNewTokens: count, sampling: .greedy,
      stopIDs: stopIDs)
  }

  private func problem(
    _ session: MolkvSession, _ request: GenerationRequest
  ) async throws -> MolkvError {
    do {
      let ids = try await generated(session, request).ids
      XCTFail("generated \(ids)")
    } catch let error as MolkvError {
      XCTAssertGreaterThan(error.fix.count, 10)
      return error
    }
    throw CancellationError()
  }

  func testChunksOfEverySizeGiveTheSameTokens() async throws {
    let expected = try await generated(Fixtures.session(Fixtures.small), request(24)).ids
    XCTAssertEqual(expected.count, 24)
    for chunk in [1, 2, 7, 36, 37] {
      let session = try Fixtures.session(Fixtures.small, chunk: chunk)
      let ids = try await generated(session, request(24)).ids
      XCTAssertEqual(ids, expected, "chunk \(chunk)")
    }
  }

  func testEachDistinctIdOfAChunkAndEachNewTokenIsOneRow() async throws {
    let session = try Fixtures.session(Fixtures.small, chunk: 16)
    let prompt: [TokenID] = [5, 6, 5, 5, 7, 6, 9]
    _ = try await generated(session, request(11, prompt: prompt))
    let statistics = await session.statistics
    XCTAssertEqual(statistics.rowsRead, 4 + 10)
    let blob = try XCTUnwrap(session.bundle.openExperts())
    XCTAssertEqual(statistics.bytesRead, 14 * UInt64(blob.rowStride))
    XCTAssertEqual(statistics.prefillTokens, 7)
    XCTAssertEqual(statistics.decodeTokens, 10)
    XCTAssertGreaterThan(statistics.timeToFirstToken, 0)
    XCTAssertGreaterThan(statistics.decodeTokensPerSecond, 0)
    XCTAssertLessThan(statistics.decodeEngineSeconds, statistics.decodeSeconds)
    XCTAssertGreaterThan(statistics.windowBytes, 0)
  }

  func testATextEndsBeforeAStopIdAndWhenTheContextIsFull() async throws {
    let session = try Fixtures.session(Fixtures.small)
    let all = try await generated(session, request(24)).ids
    let stop = try XCTUnwrap(all.dropFirst(5).first)
    let stopped = try await generated(session, request(24, stopIDs: [stop])).ids
    XCTAssertEqual(stopped, Array(all.prefix { $0 != stop }))
    let context = session.bundle.manifest.model.context
    let long = (0..<context - 3).map { TokenID($0 % 300) }
    let ids = try await generated(session, request(50, prompt: long)).ids
    // Three fit, and of the last one nobody asks what follows it.
    XCTAssertEqual(ids.count, 4)
    let position = await session.position
    XCTAssertEqual(position, context)
  }

  func testCancellingStopsBeforeTheNextTokenAndTheSessionGoesOn() async throws {
    let session = try Fixtures.session(Fixtures.small)
    let expected = try await generated(session, request(20)).ids
    let stream = session.generate(request(200))
    let task = Task {
      var ids: [TokenID] = []
      for try await token in stream {
        ids.append(token.id)
        if ids.count == 5 { withUnsafeCurrentTask { $0?.cancel() } }
      }
      return ids
    }
    let ids = try await task.value
    XCTAssertEqual(Array(ids.prefix(5)), Array(expected.prefix(5)))
    let again = try await generated(session, request(20)).ids
    XCTAssertEqual(again, expected)
    let position = await session.position
    XCTAssertEqual(position, prompt.count + 19)
  }

  func testAReaderThatLeavesEndsTheWork() async throws {
    let session = try Fixtures.session(Fixtures.small)
    var count = 0
    for try await _ in session.generate(request(200)) {
      count += 1
      if count == 3 { break }
    }
    let expected = try await generated(session, request(8)).ids
    let again = try await generated(session, request(8)).ids
    XCTAssertEqual(again, expected)
    let position = await session.position
    XCTAssertEqual(position, prompt.count + 7)
  }

  func testACancelledTaskDoesNotEvenBegin() async throws {
    let session = try Fixtures.session(Fixtures.small)
    let request = request(5)
    let task = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      return try await generated(session, request).ids
    }
    let ids = try await task.value
    XCTAssertEqual(ids, [])
    let position = await session.position
    XCTAssertEqual(position, 0)
  }

  func testGenerationsAtOnceWaitForEachOther() async throws {
    let session = try Fixtures.session(Fixtures.small)
    let expected = try await generated(session, request(12)).ids
    try await withThrowingTaskGroup(of: [TokenID].self) { group in
      for _ in 0..<4 {
        let request = request(12)
        group.addTask { try await generated(session, request).ids }
      }
      for try await ids in group { XCTAssertEqual(ids, expected) }
    }
  }

  func testStatisticsCanBeReadWhileATextIsGenerated() async throws {
    let session = try Fixtures.session(Fixtures.small)
    var counts: [Int] = []
    for try await _ in session.generate(request(12)) {
      counts.append(await session.statistics.decodeTokens)
    }
    XCTAssertEqual(counts, counts.sorted())
    XCTAssertEqual(counts.last, 11)
  }

  func testPromptsThatCannotWorkAreRefused() async throws {
    let session = try Fixtures.session(Fixtures.small)
    let context = session.bundle.manifest.model.context
    let size = TokenID(session.bundle.manifest.model.vocabularySize)
    var error = try await problem(session, request(1, prompt: []))
    XCTAssertEqual(error.kind, .contextLength)
    XCTAssertTrue(error.problem.contains("empty"))
    let long = [TokenID](repeating: 1, count: context + 1)
    error = try await problem(session, request(1, prompt: long))
    XCTAssertEqual(error.kind, .contextLength)
    XCTAssertTrue(error.problem.contains("\(context + 1) tokens do not fit"))
    for id in [-1, size, .max, .min] {
      error = try await problem(session, request(1, prompt: [1, id]))
      XCTAssertEqual(error.kind, .tokenID)
      XCTAssertTrue(error.problem.contains("token id \(id) is outside the vocabulary"))
    }
    let text = GenerationRequest(prompt: .text("hello"))
    error = try await problem(session, text)
    XCTAssertEqual(error.kind, .tokenizer)
    // The session is none the worse.
    let ids = try await generated(session, request(3)).ids
    XCTAssertEqual(ids.count, 3)
  }

  func testSettingsThatCannotWorkAreRefused() async throws {
    let session = try Fixtures.session(Fixtures.small)
    for sampling in [
      Sampling(temperature: -1), Sampling(temperature: .nan), Sampling(topK: -1),
      Sampling(topP: 0), Sampling(minP: 2),
    ] {
      let request = GenerationRequest(prompt: .tokenIDs([1]), sampling: sampling)
      let error = try await problem(session, request)
      XCTAssertEqual(error.kind, .usage)
    }
    XCTAssertThrowsError(try Fixtures.session(Fixtures.small, chunk: 0))
  }

  func testNoTokensAreAskedForAndNoneCome() async throws {
    let session = try Fixtures.session(Fixtures.small)
    for count in [0, -1] {
      let ids = try await generated(session, request(count)).ids
      XCTAssertEqual(ids, [])
    }
  }
}
