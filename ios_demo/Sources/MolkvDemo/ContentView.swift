import MolkvKit
import SwiftUI

/// The app: four screens over one session.
public struct ContentView: View {
  @State private var app: AppModel
  @State private var prompt: PromptModel
  @State private var parity = ParityModel()
  @State private var benchmark = BenchmarkModel()

  public init(app: AppModel) {
    _app = State(initialValue: app)
    _prompt = State(initialValue: PromptModel(settings: SamplingSettings()))
  }

  public var body: some View {
    TabView {
      PromptScreen(app: app, model: prompt)
        .tabItem { Label("Prompt", systemImage: "text.cursor") }
      BundlesScreen(app: app)
        .tabItem { Label("Bundles", systemImage: "shippingbox") }
      BenchmarkScreen(app: app, model: benchmark)
        .tabItem { Label("Benchmark", systemImage: "speedometer") }
      ParityScreen(app: app, model: parity)
        .tabItem { Label("Parity", systemImage: "checkmark.seal") }
    }
    .task { await app.start() }
  }
}

/// Says what the app waits for where there is no session, and shows a screen where there is one.
struct SessionView<Content: View>: View {
  let app: AppModel
  @ViewBuilder let content: (MolkvSession) -> Content

  var body: some View {
    switch app.phase {
    case .empty:
      ContentUnavailableView(
        "No bundle", systemImage: "shippingbox",
        description: Text("Import the folder that molkv export wrote, on the Bundles screen."))
    case .loading(let choice):
      VStack(spacing: 12) {
        ProgressView()
        Text("Checking and loading \(choice.name). The first time takes longer.")
          .multilineTextAlignment(.center)
      }
      .padding()
      .accessibilityElement(children: .combine)
    case .failed(let choice, let problem):
      ContentUnavailableView(
        "\(choice.name) cannot be used", systemImage: "exclamationmark.triangle",
        description: Text(problem))
    case .ready(_, let session):
      content(session)
    }
  }
}

extension View {
  /// Shows a problem until the user has read it.
  func problem(_ text: Binding<String?>) -> some View {
    alert(
      "Something went wrong",
      isPresented: Binding(
        get: { text.wrappedValue != nil }, set: { if !$0 { text.wrappedValue = nil } })
    ) {
      Button("OK", role: .cancel) {}
    } message: {
      Text(text.wrappedValue ?? "")
    }
  }
}
