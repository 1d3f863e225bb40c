import CMalloc
import Foundation
import MolkvKit
import MolkvTesting
import XCTest

/// Nothing is left of sessions that were closed, refused or cancelled.
final class LeakTests: XCTestCase {
  private static let rounds = 200

  private func round(_ number: Int) async throws {
    let folder = number % 2 == 0 ? Fixtures.small : Fixtures.stored
    let session = try Fixtures.session(folder, chunk: 8)
    let request = GenerationRequest(
      prompt: .tokenIDs(Array(1..<20)), maxNewTokens: 6, sampling: .greedy, stopIDs: [])
    var count = 0
    for try await _ in session.generate(request) {
      count += 1
      if number % 3 == 0 && count == 2 { break }
    }
    guard number % 4 == 0 else { return }
    let damaged = Fixtures.attacks.appendingPathComponent("row-byte-flipped")
    let refused = try Fixtures.session(damaged)
    do {
      _ = try await generated(refused, GenerationRequest(prompt: .tokenIDs([3])))
      XCTFail("a damaged row was used")
    } catch is MolkvError {}
  }

  func testTwoHundredRoundsLeaveNoMemoryAndNoFiles() async throws {
    for number in 0..<10 { try await round(number) }
    try await settle()
    let memory = allocatedBytes()
    let files = try openFiles()
    for number in 0..<Self.rounds { try await round(number) }
    try await settle()
    // A window alone has more than 10 KiB, so one that were left each round would be 2 MiB.
    XCTAssertLessThan(allocatedBytes() - memory, 512 << 10)
    XCTAssertEqual(try openFiles(), files)
  }

  /// A generation that nobody reads any more ends a moment later.
  private func settle() async throws {
    try await Task.sleep(nanoseconds: 200_000_000)
    malloc_trim(0)
  }

  private func allocatedBytes() -> Int {
    let info = mallinfo2()
    return Int(info.uordblks + info.hblkhd)
  }

  private func openFiles() throws -> Int {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
  }
}
