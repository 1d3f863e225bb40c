import MolkvKit
import MolkvTesting
import XCTest

/// The tokenizer gives what the `tokenizers` library gives.
final class TokenizerTests: XCTestCase {
  private struct Case: Decodable {
    let text: String
    let ids: [TokenID]
    let decoded: String
  }

  func testTextsOfManyKinds() throws {
    let tokenizer = try XCTUnwrap(MolkvBundle(folder: Fixtures.tiny).openTokenizer())
    let cases = try Fixtures.json("tokenizer.json", as: [Case].self)
    XCTAssertGreaterThan(cases.count, 20)
    for example in cases {
      XCTAssertEqual(try tokenizer.encode(example.text), example.ids, example.text)
      XCTAssertEqual(try tokenizer.decode(example.ids), example.decoded, example.text)
    }
  }

  func testTheEndOfTextIsFoundByItsContent() throws {
    let tokenizer = try XCTUnwrap(MolkvBundle(folder: Fixtures.tiny).openTokenizer())
    XCTAssertEqual(tokenizer.endOfText, tokenizer.find("<|endoftext|>"))
    XCTAssertNotNil(tokenizer.endOfText)
    XCTAssertNil(tokenizer.find("no such token"))
  }

  func testACharacterOfSeveralTokensComesWhole() async throws {
    let session = try Fixtures.session(Fixtures.tiny)
    let request = GenerationRequest(
      prompt: .text("The President of the United States"), maxNewTokens: 40,
      sampling: Sampling(temperature: 1.5, seed: 7), stopIDs: [])
    let result = try await generated(session, request)
    XCTAssertEqual(result.text, try session.tokenizer?.decode(result.ids))
  }

  func testAFileThatIsNoTokenizerIsRefused() {
    XCTAssertThrowsError(try Tokenizer(file: "/nowhere/tokenizer.json")) {
      XCTAssertEqual(($0 as? MolkvError)?.kind, .tokenizer)
      XCTAssertTrue("\($0)".contains("/nowhere/tokenizer.json"))
    }
  }
}
