import MolkvKit
import MolkvTesting
import XCTest

/// Every hostile bundle is refused in time, with the place and the fix, as the Python runtime does.
final class HostileBundleTests: XCTestCase {
  private struct Attack: Decodable {
    let when: String
    let error: String
    let message: [String]
  }

  private static let kinds: [String: MolkvError.Kind] = [
    "BundleError": .bundle, "BlobFormatError": .blobFormat, "RowCorruptError": .corruptRow,
    "TokenizerError": .tokenizer,
  ]
  // What is said otherwise than in Python.
  private static let otherWords = [
    "identity is None": "identity is missing", "embedding is None": "embedding is missing",
    "the manifest says None": "the manifest says missing",
  ]

  private func use(_ folder: URL, reached: inout [String]) async throws {
    reached.append("open")
    _ = try MolkvBundle(folder: folder)
    reached.append("session")
    let session = try Fixtures.session(folder)
    reached.append("read")
    let prompt = GenerationRequest(prompt: .tokenIDs(Array(0..<8)), maxNewTokens: 1)
    _ = try await generated(session, prompt)
  }

  func testTheBundleThatAttacksStartFromIsValid() async throws {
    var reached: [String] = []
    try await use(Fixtures.small, reached: &reached)
    XCTAssertEqual(reached, ["open", "session", "read"])
  }

  func testEveryAttackIsRefused() async throws {
    let attacks = try Fixtures.json("attacks/expected.json", as: [String: Attack].self)
    XCTAssertGreaterThan(attacks.count, 45)
    for (name, attack) in attacks.sorted(by: { $0.key < $1.key }) {
      let folder = Fixtures.attacks.appendingPathComponent(name)
      var reached: [String] = []
      do {
        try await use(folder, reached: &reached)
        XCTFail("\(name) was accepted")
      } catch let error as MolkvError {
        XCTAssertEqual(error.kind, Self.kinds[attack.error], "\(name): \(error)")
        XCTAssertEqual(reached.last, attack.when, "\(name): \(error)")
        XCTAssertGreaterThan(error.fix.count, 10, name)
        for part in attack.message + [folder.path] {
          let words = Self.otherWords[part] ?? part
          XCTAssertTrue(error.description.contains(words), "\(name): \(error) lacks '\(words)'")
        }
      }
    }
  }

  func testADamagedRowIsRefusedWhenItIsReadAndOtherRowsWork() async throws {
    let folder = Fixtures.attacks.appendingPathComponent("row-byte-flipped")
    let session = try Fixtures.session(folder)
    let good = GenerationRequest(prompt: .tokenIDs([1, 2, 4]), maxNewTokens: 1)
    let before = try await generated(session, good).ids
    do {
      _ = try await generated(session, GenerationRequest(prompt: .tokenIDs([1, 2, 3])))
      XCTFail("a damaged row was used")
    } catch let error as MolkvError {
      XCTAssertEqual(error.kind, .corruptRow)
    }
    let after = try await generated(session, good).ids
    XCTAssertEqual(after, before)
    XCTAssertThrowsError(try session.bundle.verifyExperts()) {
      XCTAssertTrue("\($0)".contains("experts.molkv: sha256"))
    }
  }
}
