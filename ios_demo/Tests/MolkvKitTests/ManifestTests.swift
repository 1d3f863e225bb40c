import MolkvKit
import MolkvTesting
import XCTest

/// Manifests and golden files that no exporter writes.
final class ManifestTests: XCTestCase {
  private func problem(_ content: Data) async throws -> MolkvError? {
    var found: MolkvError?
    try await Fixtures.temporaryFolder { folder in
      try content.write(to: folder.appendingPathComponent("manifest.json"))
      do {
        _ = try Manifest.read(folder: folder)
      } catch let error as MolkvError {
        found = error
      }
    }
    return found
  }

  func testJSONThatIsNoneIsRefusedAndNeverEndsTheProcess() async throws {
    let hostile = [
      "", "nul", "[", "{\"a\"", "{\"a\":}", "{\"\\ud800\": 1}", "{\"\\udc00\\ud800\": 1}",
      "{\"\\q\": 1}", "{\"a\u{1}b\": 1}", "{\"\\u12\": 1}", "{\"schema_version\": 1e999}",
      "{\"schema_version\": 99999999999999999999}", "{\"schema_version\": NaN}",
      "{\"schema_version\": true}", "{\"schema_version\": null}", "{\"schema_version\": 1.5}",
      "{\"schema_version\": 1, \"schema_version\": 1}", "{\"schema_version\": 1,}",
      "{\"schema_version\": 1} trailing", "\u{feff}{\"schema_version\": 1}",
      String(repeating: "{\"a\":", count: 100_000),
    ]
    for text in hostile {
      let error = try await problem(Data(text.utf8))
      XCTAssertEqual(error?.kind, .bundle, "\(text.prefix(40))")
      XCTAssertEqual(error?.problem.contains("manifest.json: "), true, "\(text.prefix(40))")
    }
    for bytes: [UInt8] in [[0xff], Array("{\"\u{0}\": 1}".utf8), [0x7b, 0x22, 0xc0, 0x22, 0x3a]] {
      let error = try await problem(Data(bytes))
      XCTAssertEqual(error?.kind, .bundle)
    }
  }

  func testEveryFieldThatIsMissingOrOfAnotherTypeIsNamed() async throws {
    let file = Fixtures.small.appendingPathComponent("manifest.json")
    let valid = try XCTUnwrap(
      JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
    for name in valid.keys where name != "parity" {
      var fields = valid
      fields[name] = nil
      var error = try await problem(JSONSerialization.data(withJSONObject: fields))
      XCTAssertEqual(error?.problem.contains("missing required field `\(name)`"), true, name)
      fields[name] = name == "golden" || name == "identity" ? 1 : "text"
      error = try await problem(JSONSerialization.data(withJSONObject: fields))
      XCTAssertEqual(error?.problem.contains("manifest.json: \(name)"), true, "\(error!)")
    }
    let whole = try await problem(JSONSerialization.data(withJSONObject: valid))
    XCTAssertNil(whole)
  }

  func testQuantizationIsReadStrictly() async throws {
    let file = Fixtures.small.appendingPathComponent("manifest.json")
    let valid = try XCTUnwrap(
      JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
    let calibration: [String: Any] = [
      "max_kl": 0.02, "kl_divergence": 1, "same_top1": 0.98, "tokens": 4096,
    ]
    func changed(_ change: [String: Any]) -> [String: Any] {
      ["calibration": calibration.merging(change) { $1 }]
    }
    for (change, words) in [
      ([:], nil), (["embedding": NSNull(), "calibration": NSNull()], nil),
      (["embedding": "f16"], nil), (changed([:]), nil),
      (["embedding": "int8"], "quantization.embedding: "),
      (["embedding": 16], "quantization.embedding"),
      (["experts": NSNull(), "embedding": "f16"], "quantization.embedding is f16, but"),
      (["calibration": [Any]()], "quantization.calibration"),
      (["calibration": [String: Any]()], "missing required field `max_kl`"),
      (changed(["tokens": "many"]), "quantization.calibration.tokens"),
      (changed(["same_top1": NSNull()]), "quantization.calibration.same_top1"),
      (changed(["surprise": 1]), "unknown field `surprise`"),
      (["surprise": 1], "unknown field `surprise`"),
    ] as [([String: Any], String?)] {
      let quantization = ["experts": "int8"].merging(change) { $1 }
      let content = valid.merging(["quantization": quantization]) { $1 }
      let error = try await problem(JSONSerialization.data(withJSONObject: content))
      if let words {
        XCTAssertEqual(error?.kind, .bundle, words)
        XCTAssertEqual(error?.problem.contains(words), true, "\(words): \(error as Any)")
      } else {
        XCTAssertNil(error)
      }
    }
  }

  func testAnUnknownBackendIsNamedWithThoseThatAreThere() throws {
    let manifest = try Manifest.read(folder: Fixtures.small)
    XCTAssertThrowsError(try manifest.backend("coreml")) {
      XCTAssertTrue("\($0)".contains("has no coreml graph, only onnx"))
      XCTAssertTrue("\($0)".contains("--backend coreml"))
    }
  }

  func testDamagedGoldenFilesAreRefused() async throws {
    try await Fixtures.temporaryFolder { folder in
      let copy = folder.appendingPathComponent("bundle")
      try FileManager.default.copyItem(at: Fixtures.small, to: copy)
      let bundle = try MolkvBundle(folder: copy)
      let file = copy.appendingPathComponent("golden.json")
      let valid = try XCTUnwrap(
        JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
      let cases = try XCTUnwrap(valid["cases"] as? [[String: Any]])
      func changed(_ name: String, _ value: Any) -> [String: Any] {
        var first = cases[0]
        first[name] = value
        return ["cases": [first]]
      }
      for (change, words) in [
        (["schema_version": 2], "schema_version is 2"), (["cases": [Any]()], "cases is empty"),
        (["surprise": 1], "unknown field `surprise`"),
        (changed("greedy", [320]), "token id 320 is outside"),
        (changed("prompt_ids", [-1]), "token id -1 is outside"),
        (changed("prompt_ids", [Int]()), "prompt_ids"),
        (changed("logits_tolerance", 0), "logits_tolerance"),
      ] as [([String: Any], String)] {
        let content = valid.merging(change) { $1 }
        try JSONSerialization.data(withJSONObject: content).write(to: file)
        XCTAssertThrowsError(try bundle.loadGolden()) {
          XCTAssertEqual(($0 as? MolkvError)?.kind, .bundle)
          XCTAssertTrue("\($0)".contains("golden.json: ") && "\($0)".contains(words), "\($0)")
        }
      }
    }
  }
}
