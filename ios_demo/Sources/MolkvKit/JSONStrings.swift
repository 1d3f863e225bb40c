/// Checks the strings of a JSON text, as Foundation's decoder fails to do for keys: one that is no
/// UTF-8 or has an escape that is none ends the process there.
struct JSONStrings {
  private let bytes: UnsafeRawBufferPointer
  private var place = 0

  /// What is wrong with the first string that is none; nil if all are well.
  static func problem(in bytes: UnsafeRawBufferPointer) -> String? {
    guard String(validating: bytes, as: UTF8.self) != nil else { return "is no UTF-8" }
    var scanner = JSONStrings(bytes: bytes)
    while let byte = scanner.next() {
      if byte == UInt8(ascii: "\""), !scanner.endsString() {
        return "has a broken string that ends at byte \(scanner.place)"
      }
    }
    return nil
  }

  private init(bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  private mutating func next() -> UInt8? {
    guard place < bytes.count else { return nil }
    defer { place += 1 }
    return bytes[place]
  }

  /// Passes over a string whose opening quote was read; false if it is none.
  private mutating func endsString() -> Bool {
    while let byte = next() {
      switch byte {
      case UInt8(ascii: "\""): return true
      case UInt8(ascii: "\\"): guard isEscape() else { return false }
      case 0..<0x20: return false
      default: break
      }
    }
    return false
  }

  /// Passes over what follows a backslash.
  private mutating func isEscape() -> Bool {
    guard let letter = next() else { return false }
    if letter != UInt8(ascii: "u") { return "\"\\/bfnrt".utf8.contains(letter) }
    guard let unit = codeUnit() else { return false }
    switch unit {
    case 0xd800..<0xdc00:  // the first half of a pair
      guard next() == UInt8(ascii: "\\"), next() == UInt8(ascii: "u"), let second = codeUnit()
      else { return false }
      return (0xdc00..<0xe000).contains(second)
    case 0xdc00..<0xe000: return false
    default: return true
    }
  }

  private mutating func codeUnit() -> Int? {
    var unit = 0
    for _ in 0..<4 {
      guard let byte = next(), let digit = Character(UnicodeScalar(byte)).hexDigitValue else {
        return nil
      }
      unit = 16 * unit + digit
    }
    return unit
  }
}
