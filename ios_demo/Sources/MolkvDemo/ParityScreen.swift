import MolkvKit
import SwiftUI

/// The golden cases of the bundle, on this device.
struct ParityScreen: View {
  let app: AppModel
  @Bindable var model: ParityModel

  var body: some View {
    NavigationStack {
      SessionView(app: app) { session in
        List {
          Section {
            if model.isRunning {
              ProgressView { Text("Comparing") }
              Button("Stop", role: .destructive) { model.stop() }
            } else {
              Button("Compare with the golden cases") { Task { await model.run(on: session) } }
                .accessibilityHint("Checks that this device computes what the exporter recorded")
            }
            if let verdict = model.verdict {
              Label(
                verdict == .passed ? "Passed" : "Failed",
                systemImage: verdict == .passed ? "checkmark.seal.fill" : "xmark.seal.fill"
              )
              .font(.headline)
            }
          }
          Section("Rungs") {
            ForEach(model.rungs) { rung in RungRow(rung: rung) }
          }
        }
      }
      .navigationTitle("Parity")
      .problem($model.alert)
    }
  }
}

/// One rung: what was compared, and how it came out.
struct RungRow: View {
  let rung: ParityRung

  var body: some View {
    VStack(alignment: .leading, spacing: 4) {
      Label(rung.name, systemImage: symbol)
      Text(rung.passed == nil ? rung.detail : "\(figures) (\(rung.detail))")
        .font(.footnote)
        .foregroundStyle(.secondary)
    }
    .accessibilityElement(children: .ignore)
    .accessibilityLabel("\(rung.name): \(outcome)")
    .accessibilityValue(rung.passed == nil ? rung.detail : figures)
  }

  private var figures: String {
    "\(Figures.scientific(rung.figure)), at most \(Figures.scientific(rung.limit))"
  }

  private var symbol: String {
    switch rung.passed {
    case true?: "checkmark.circle"
    case false?: "xmark.circle"
    case nil: "minus.circle"
    }
  }

  private var outcome: String {
    switch rung.passed {
    case true?: "passed"
    case false?: "failed"
    case nil: "not comparable"
    }
  }
}
