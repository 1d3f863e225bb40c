// The views that the app is made of.

import Foundation

public struct Text: Primitive {
  public init(_ text: String) {}
}

public struct Image: Primitive {
  public init(systemName: String) {}
}

public struct Spacer: Primitive {
  public init() {}
}

public struct Label: Primitive {
  public init(_ title: String, systemImage: String) {}
}

public enum HorizontalAlignment: Sendable { case leading, center, trailing }
public enum Axis: Sendable { case horizontal, vertical }

public struct VStack<Content: View>: Primitive {
  public init(
    alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil,
    @ViewBuilder content: () -> Content
  ) { _ = content() }
}

public struct HStack<Content: View>: Primitive {
  public init(spacing: CGFloat? = nil, @ViewBuilder content: () -> Content) { _ = content() }
}

public struct Form<Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content) { _ = content() }
}

public struct List<Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content) { _ = content() }
}

public struct NavigationStack<Content: View>: Primitive {
  public init(@ViewBuilder root: () -> Content) { _ = root() }
}

public struct TabView<Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content) { _ = content() }
}

public struct Section<Content: View>: Primitive {
  public init(_ title: String, @ViewBuilder content: () -> Content) { _ = content() }
  public init(@ViewBuilder content: () -> Content) { _ = content() }
}

public struct ForEach<Elements: RandomAccessCollection, Content: View>: Primitive
where Elements.Element: Identifiable {
  public init(_ elements: Elements, @ViewBuilder content: @escaping (Elements.Element) -> Content) {
    for element in elements { _ = content(element) }
  }
}

public struct ButtonRole: Sendable, Equatable {
  public static let destructive = ButtonRole()
  public static let cancel = ButtonRole()
}

public struct Button<Content: View>: Primitive {
  public init(
    role: ButtonRole? = nil, action: @escaping @MainActor () -> Void,
    @ViewBuilder label: () -> Content
  ) { _ = label() }
}

extension Button where Content == Text {
  public init(_ title: String, role: ButtonRole? = nil, action: @escaping @MainActor () -> Void) {}
}

extension Button where Content == Label {
  public init(
    _ title: String, systemImage: String, role: ButtonRole? = nil,
    action: @escaping @MainActor () -> Void
  ) {}
}

public struct TextField: Primitive {
  public init(_ title: String, text: Binding<String>) {}
  public init(_ title: String, text: Binding<String>, axis: Axis) {}
}

public struct Toggle: Primitive {
  public init(_ title: String, isOn: Binding<Bool>) {}
}

public struct Slider: Primitive {
  public init<Value: BinaryFloatingPoint>(value: Binding<Value>, in range: ClosedRange<Value>) {}
}

public struct Stepper: Primitive {
  public init<Value: Strideable>(
    _ title: String, value: Binding<Value>, in range: ClosedRange<Value>, step: Value.Stride = 1
  ) {}
}

public struct LabeledContent<Content: View>: Primitive {
  public init(_ title: String, @ViewBuilder content: () -> Content) { _ = content() }
}

extension LabeledContent where Content == Text {
  public init(_ title: String, value: String) {}
}

public struct ProgressView<Content: View>: Primitive {
  public init(@ViewBuilder label: () -> Content) { _ = label() }
  public init<Value: BinaryFloatingPoint>(value: Value?, @ViewBuilder label: () -> Content) {
    _ = label()
  }
}

extension ProgressView where Content == EmptyView {
  public init() {}
}

public struct ContentUnavailableView: Primitive {
  public init(_ title: String, systemImage: String, description: Text? = nil) {}
}

public struct ShareLink: Primitive {
  public init(_ title: String, item: String) {}
}
