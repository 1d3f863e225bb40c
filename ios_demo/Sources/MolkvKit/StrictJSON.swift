import Foundation

/// A JSON value of any kind, for comparing records field by field.
enum JSONValue: Equatable, Sendable, Decodable {
  case null
  case boolean(Bool)
  case number(Double)
  case text(String)
  case list([JSONValue])
  case object([String: JSONValue])

  init(from decoder: any Decoder) throws {
    let value = try decoder.singleValueContainer()
    if value.decodeNil() {
      self = .null
    } else if let boolean = try? value.decode(Bool.self) {
      self = .boolean(boolean)
    } else if let number = try? value.decode(Double.self) {
      self = .number(number)
    } else if let text = try? value.decode(String.self) {
      self = .text(text)
    } else if let list = try? value.decode([JSONValue].self) {
      self = .list(list)
    } else {
      self = .object(try value.decode([String: JSONValue].self))
    }
  }

  /// For messages: never longer than a line.
  var shown: String {
    switch self {
    case .null: "missing"
    case .boolean(let value): String(value)
    case .number(let value):
      value == value.rounded() && abs(value) < 1e18 ? String(Int64(value)) : String(value)
    case .text(let value): String(value.prefix(80))
    case .list: "a list"
    case .object: "an object"
    }
  }
}

/// A JSON object that is read strictly: every field is there, has its type, and none is unknown.
struct StrictFields<Key: CodingKey & CaseIterable> {
  private let container: KeyedDecodingContainer<Key>

  init(_ decoder: any Decoder, _: Key.Type = Key.self) throws {
    let all = try decoder.container(keyedBy: AnyKey.self)
    let known = Set(Key.allCases.map(\.stringValue))
    if let unknown = all.allKeys.map(\.stringValue).filter({ !known.contains($0) }).min() {
      throw DecodingError.dataCorrupted(
        .init(codingPath: all.codingPath, debugDescription: "unknown field `\(unknown)`"))
    }
    container = try decoder.container(keyedBy: Key.self)
  }

  subscript<Value: Decodable>(_ key: Key) -> Value {
    get throws { try container.decode(Value.self, forKey: key) }
  }

  /// A required field that may be null.
  subscript<Value: Decodable>(nullable key: Key) -> Value? {
    get throws {
      guard container.contains(key) else {
        throw DecodingError.keyNotFound(
          key, .init(codingPath: container.codingPath, debugDescription: ""))
      }
      return try container.decodeIfPresent(Value.self, forKey: key)
    }
  }

  /// A field that may be absent or null.
  subscript<Value: Decodable>(optional key: Key) -> Value? {
    get throws { try container.decodeIfPresent(Value.self, forKey: key) }
  }

  /// An error about a field.
  func refusal(_ key: Key, _ problem: String) -> DecodingError {
    .dataCorrupted(.init(codingPath: container.codingPath + [key], debugDescription: problem))
  }
}

private struct AnyKey: CodingKey {
  let stringValue: String
  var intValue: Int? { nil }
  init(stringValue: String) { self.stringValue = stringValue }
  init?(intValue: Int) { nil }
}

/// Decodes a JSON file's content; what is wrong with it is a bundle error that names the place.
func decodeJSON<Record: Decodable>(_ type: Record.Type, _ content: Data, file: String) throws
  -> Record
{
  if let problem = content.withUnsafeBytes({ JSONStrings.problem(in: $0) }) {
    throw MolkvError(.bundle, "\(file): \(problem)", fix: "copy the bundle again")
  }
  do {
    return try JSONDecoder().decode(type, from: content)
  } catch let error as DecodingError {
    throw MolkvError(
      .bundle, "\(file): \(words(of: error))",
      fix: "copy the bundle again, or export it with this version")
  }
}

private func words(of error: DecodingError) -> String {
  switch error {
  case .keyNotFound(let key, let context):
    "\(place(context.codingPath)) is missing required field `\(key.stringValue)`"
  case .typeMismatch(let type, let context):
    "\(place(context.codingPath)) is not of type \(type)"
  case .valueNotFound(let type, let context):
    "\(place(context.codingPath)) is null, expected \(type)"
  case .dataCorrupted(let context):
    context.codingPath.isEmpty && context.underlyingError != nil
      ? "is no JSON: \(context.debugDescription)"
      : "\(place(context.codingPath)): \(context.debugDescription)"
  @unknown default: "cannot be decoded"
  }
}

/// A path such as `files[3].bytes`.
private func place(_ path: [any CodingKey]) -> String {
  let text = path.reduce(into: "") { text, key in
    if let index = key.intValue {
      text += "[\(index)]"
    } else {
      text += text.isEmpty ? key.stringValue : ".\(key.stringValue)"
    }
  }
  return text.isEmpty ? "the content" : text
}
