// The modifiers that the app uses.

import Foundation
import UniformTypeIdentifiers

public struct Font: Sendable {
  public static let headline = Font()
  public static let footnote = Font()
}

public protocol ShapeStyle {}
public struct HierarchicalShapeStyle: ShapeStyle {}
extension ShapeStyle where Self == HierarchicalShapeStyle {
  public static var primary: HierarchicalShapeStyle { HierarchicalShapeStyle() }
  public static var secondary: HierarchicalShapeStyle { HierarchicalShapeStyle() }
}

public enum TextAlignment: Sendable { case leading, center, trailing }

public protocol TextSelectability {}
public struct EnabledTextSelectability: TextSelectability {}
extension TextSelectability where Self == EnabledTextSelectability {
  public static var enabled: EnabledTextSelectability { EnabledTextSelectability() }
}

public enum UIKeyboardType: Sendable { case numberPad }

public struct AccessibilityTraits: OptionSet, Sendable {
  public let rawValue: Int
  public init(rawValue: Int) { self.rawValue = rawValue }
  public static let isSelected = AccessibilityTraits(rawValue: 1)
  public static let updatesFrequently = AccessibilityTraits(rawValue: 2)
}

public enum AccessibilityChildBehavior: Sendable { case ignore, contain, combine }

public struct ToolbarItemPlacement: Sendable {
  public static let primaryAction = ToolbarItemPlacement()
  public static let confirmationAction = ToolbarItemPlacement()
}

@MainActor @preconcurrency public protocol ToolbarContent {}

public struct ToolbarItem<Content: View>: ToolbarContent {
  public init(placement: ToolbarItemPlacement, @ViewBuilder content: () -> Content) {
    _ = content()
  }
}

@resultBuilder public enum ToolbarContentBuilder {
  public static func buildBlock<Content: ToolbarContent>(_ content: Content) -> Content { content }
}

extension View {
  public func padding() -> some View { self }
  public func font(_ font: Font?) -> some View { self }
  public func foregroundStyle(_ style: some ShapeStyle) -> some View { self }
  public func multilineTextAlignment(_ alignment: TextAlignment) -> some View { self }
  public func lineLimit(_ limit: ClosedRange<Int>) -> some View { self }
  public func monospacedDigit() -> some View { self }
  public func textSelection(_ selectability: some TextSelectability) -> some View { self }
  public func keyboardType(_ type: UIKeyboardType) -> some View { self }
  public func disabled(_ disabled: Bool) -> some View { self }
  public func navigationTitle(_ title: String) -> some View { self }
  public func task(_ action: @escaping @MainActor @Sendable () async -> Void) -> some View { self }

  public func tabItem(@ViewBuilder _ label: () -> some View) -> some View {
    _ = label()
    return self
  }
  public func toolbar(@ToolbarContentBuilder content: () -> some ToolbarContent) -> some View {
    _ = content()
    return self
  }
  public func swipeActions(@ViewBuilder content: () -> some View) -> some View {
    _ = content()
    return self
  }
  public func sheet(isPresented: Binding<Bool>, @ViewBuilder content: @escaping () -> some View)
    -> some View
  {
    _ = content()
    return self
  }
  public func alert(
    _ title: String, isPresented: Binding<Bool>, @ViewBuilder actions: () -> some View,
    @ViewBuilder message: () -> some View
  ) -> some View {
    _ = (actions(), message())
    return self
  }
  public func fileImporter(
    isPresented: Binding<Bool>, allowedContentTypes: [UTType],
    onCompletion: @escaping (Result<URL, any Error>) -> Void
  ) -> some View { self }

  public func accessibilityLabel(_ label: String) -> some View { self }
  public func accessibilityValue(_ value: String) -> some View { self }
  public func accessibilityHint(_ hint: String) -> some View { self }
  public func accessibilityHidden(_ hidden: Bool) -> some View { self }
  public func accessibilityAddTraits(_ traits: AccessibilityTraits) -> some View { self }
  public func accessibilityElement(children: AccessibilityChildBehavior) -> some View { self }
}
