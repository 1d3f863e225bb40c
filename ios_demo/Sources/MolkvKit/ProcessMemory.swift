import Foundation

#if canImport(Darwin)
  // The C header declares a constant as a variable, `mach_task_self_`.
  @preconcurrency import Darwin
  import os
#endif

/// What this process takes of the device's memory.
public struct ProcessMemory: Equatable, Sendable {
  /// Bytes that count against the app's limit.
  public let used: UInt64
  /// Bytes until the system ends the app; nil where the system does not say.
  public let available: UInt64?

  /// The figures now; nil if the system refuses.
  public static func now() -> ProcessMemory? {
    #if canImport(Darwin)
      var info = task_vm_info_data_t()
      var count = mach_msg_type_number_t(
        MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
      let result = withUnsafeMutablePointer(to: &info) { pointer in
        pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
          task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
        }
      }
      guard result == KERN_SUCCESS else { return nil }
      #if os(iOS)
        let available = UInt64(os_proc_available_memory())
        return ProcessMemory(used: info.phys_footprint, available: available)
      #else
        return ProcessMemory(used: info.phys_footprint, available: nil)
      #endif
    #else
      // The second number is resident pages.
      guard let line = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else {
        return nil
      }
      let numbers = line.split(separator: " ").compactMap { UInt64($0) }
      guard numbers.count > 1 else { return nil }
      return ProcessMemory(used: numbers[1] * UInt64(getpagesize()), available: nil)
    #endif
  }
}
