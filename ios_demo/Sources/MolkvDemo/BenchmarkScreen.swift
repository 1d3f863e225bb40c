import MolkvKit
import SwiftUI

/// Prefill and decode, some times over.
struct BenchmarkScreen: View {
  let app: AppModel
  @Bindable var model: BenchmarkModel

  var body: some View {
    NavigationStack {
      SessionView(app: app) { session in
        Form {
          Section("What to measure") {
            Stepper(
              "Prompt: \(model.promptTokens) tokens", value: $model.promptTokens, in: 1...4096,
              step: 64)
            Stepper(
              "Then \(model.newTokens) steps", value: $model.newTokens, in: 1...1024, step: 16)
            Stepper("\(model.repetitions) times", value: $model.repetitions, in: 1...50)
          }
          .disabled(model.isRunning)
          Section {
            if let progress = model.progress {
              ProgressView(value: progress) { Text("Measuring") }
                .accessibilityValue(Figures.percent(progress))
              Button("Stop", role: .destructive) { model.stop() }
            } else {
              Button("Measure") { Task { await model.run(on: session) } }
                .accessibilityHint("Runs the model; leave the app open")
            }
          }
          if let report = model.report { results(report) }
        }
      }
      .navigationTitle("Benchmark")
      .problem($model.alert)
    }
  }

  private func results(_ report: Benchmark.Report) -> some View {
    Section("Medians of \(report.samples.count)") {
      figure("Prefill", Figures.rate(report.median(\.prefillTokensPerSecond)))
      figure("Decode", Figures.rate(report.median(\.decodeTokensPerSecond)))
      figure("First token", Figures.milliseconds(report.median(\.timeToFirstToken)))
      figure("Inside Core ML", Figures.percent(report.median(\.engineShare)))
      figure("Lookup a token", Figures.scientific(report.median(\.lookupMicroseconds)) + " µs")
      figure("Bytes read a token", Figures.bytes(UInt64(report.median(\.bytesReadPerToken))))
      if let text = model.sharedText {
        ShareLink("Share as JSON", item: text)
      }
    }
  }

  private func figure(_ name: String, _ value: String) -> some View {
    LabeledContent(name) { Text(value).monospacedDigit() }
      .accessibilityElement(children: .combine)
  }
}
