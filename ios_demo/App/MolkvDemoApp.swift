import MolkvDemo
import SwiftUI

@main
struct MolkvDemoApp: App {
  @State private var model = AppModel.app()

  var body: some Scene {
    WindowGroup { ContentView(app: model) }
  }
}
