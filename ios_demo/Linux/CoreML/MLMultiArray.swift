// Core ML's arrays, as far as MolkvKit uses them, on plain memory.

import Foundation

public enum MLMultiArrayDataType: Int, Sendable {
  case double = 0x10040
  case float32 = 0x10020
  case float16 = 0x10010
  case int32 = 0x20020

  var bytes: Int { (rawValue & 0xff) / 8 }
}

public final class MLMultiArray {
  public let shape: [NSNumber]
  public let strides: [NSNumber]
  public let dataType: MLMultiArrayDataType
  public let count: Int
  private let memory: UnsafeMutableRawPointer
  private let release: (UnsafeMutableRawPointer) -> Void

  public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {
    self.shape = shape
    self.dataType = dataType
    count = shape.reduce(1) { $0 * $1.intValue }
    strides = contiguous(shape)
    memory = .allocate(byteCount: max(1, count * dataType.bytes), alignment: 64)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: count * dataType.bytes)
    release = { $0.deallocate() }
  }

  public init(
    dataPointer: UnsafeMutableRawPointer, shape: [NSNumber], dataType: MLMultiArrayDataType,
    strides: [NSNumber], deallocator: ((UnsafeMutableRawPointer) -> Void)? = nil
  ) throws {
    precondition(strides == contiguous(shape), "this stand-in takes contiguous memory only")
    self.shape = shape
    self.dataType = dataType
    self.strides = strides
    count = shape.reduce(1) { $0 * $1.intValue }
    memory = dataPointer
    release = deallocator ?? { _ in }
  }

  deinit { release(memory) }

  public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows
    -> Result
  {
    try body(UnsafeRawBufferPointer(start: memory, count: count * dataType.bytes))
  }

  public func withUnsafeMutableBytes<Result>(
    _ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> Result
  ) rethrows -> Result {
    try body(
      UnsafeMutableRawBufferPointer(start: memory, count: count * dataType.bytes),
      strides.map(\.intValue))
  }

  public func withUnsafeBufferPointer<Scalar, Result>(
    ofType: Scalar.Type, _ body: (UnsafeBufferPointer<Scalar>) throws -> Result
  ) rethrows -> Result {
    precondition(MemoryLayout<Scalar>.size == dataType.bytes)
    return try withUnsafeBytes { try body($0.bindMemory(to: Scalar.self)) }
  }
}

private func contiguous(_ shape: [NSNumber]) -> [NSNumber] {
  var stride = 1
  return shape.reversed().map { size -> NSNumber in
    defer { stride *= size.intValue }
    return NSNumber(value: stride)
  }.reversed()
}
