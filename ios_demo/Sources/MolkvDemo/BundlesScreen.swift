import MolkvKit
import SwiftUI
import UniformTypeIdentifiers

/// The bundles in the app; imports others, checks and deletes them.
struct BundlesScreen: View {
  @Bindable var app: AppModel
  @State private var picksFolder = false

  var body: some View {
    NavigationStack {
      List {
        Section("Bundles") {
          ForEach(app.choices) { choice in row(choice) }
          if app.choices.isEmpty { Text("None yet").foregroundStyle(.secondary) }
        }
        if let progress = app.importProgress {
          Section("Import") {
            ProgressView(value: progress) { Text("Copying and checking") }
              .accessibilityValue(Figures.percent(progress))
            Button("Cancel", role: .destructive) { app.cancelImport() }
          }
        }
        if case .ready(_, let session) = app.phase {
          details(session.bundle.manifest)
        }
      }
      .navigationTitle("Bundles")
      .toolbar {
        ToolbarItem(placement: .primaryAction) {
          Button("Import", systemImage: "square.and.arrow.down") { picksFolder = true }
            .disabled(app.importProgress != nil)
            .accessibilityHint("Copies the folder that molkv export wrote into the app")
        }
      }
      .fileImporter(isPresented: $picksFolder, allowedContentTypes: [.folder]) { result in
        switch result {
        case .success(let folder): Task { await app.importBundle(from: folder) }
        case .failure(let error): app.alert = message(for: error)
        }
      }
      .problem($app.alert)
    }
  }

  private func row(_ choice: AppModel.Choice) -> some View {
    Button {
      Task { await app.choose(choice) }
    } label: {
      HStack {
        Text(choice.name).foregroundStyle(.primary)
        Spacer()
        if app.chosen == choice {
          Image(systemName: "checkmark").accessibilityHidden(true)
        }
      }
    }
    .accessibilityLabel(choice.name)
    .accessibilityAddTraits(app.chosen == choice ? .isSelected : [])
    .swipeActions {
      if !choice.isBuiltIn {
        Button("Delete", systemImage: "trash", role: .destructive) {
          Task { await app.delete(choice) }
        }
      }
    }
  }

  private func details(_ manifest: Manifest) -> some View {
    Section("In use") {
      LabeledContent("Architecture", value: manifest.model.architecture.rawValue)
      LabeledContent("Context", value: "\(manifest.model.context) tokens")
      LabeledContent("Experts", value: manifest.expertPrecision?.rawValue ?? "none")
      LabeledContent("Size", value: Figures.bytes(UInt64(manifest.totalBytes)))
      LabeledContent("Verified at export", value: verdict(manifest.parity))
      LabeledContent("Identity", value: String(manifest.identity.prefix(12)))
    }
  }

  private func verdict(_ parity: Manifest.Parity?) -> String {
    guard let parity else { return "no" }
    return parity.passed ? "passed, \(parity.rungs) rungs" : "failed"
  }
}
