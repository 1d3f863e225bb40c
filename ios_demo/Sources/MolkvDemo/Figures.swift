import Foundation

/// Figures as people read them, the same everywhere.
enum Figures {
  static func bytes(_ count: UInt64) -> String {
    var value = Double(count)
    for unit in ["B", "KiB", "MiB"] {
      if value < 1024 { return unit == "B" ? "\(count) B" : format(value, unit) }
      value /= 1024
    }
    return format(value, "GiB")
  }

  static func rate(_ tokensPerSecond: Double) -> String { format(tokensPerSecond, "tokens/s") }

  static func milliseconds(_ seconds: Double) -> String { format(1e3 * seconds, "ms") }

  static func percent(_ share: Double) -> String { format(100 * share, "%") }

  /// A measured figure, which may be tiny.
  static func scientific(_ value: Double) -> String { String(format: "%.3g", value) }

  private static func format(_ value: Double, _ unit: String) -> String {
    String(format: "%.1f ", value) + unit
  }
}
