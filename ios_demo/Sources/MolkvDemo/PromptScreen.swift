import MolkvKit
import SwiftUI

/// A prompt, its continuation as it comes, and what that costs.
struct PromptScreen: View {
  let app: AppModel
  @Bindable var model: PromptModel
  @State private var showsSettings = false

  var body: some View {
    NavigationStack {
      SessionView(app: app) { session in
        Form {
          Section("Prompt") {
            TextField("Prompt", text: $model.prompt, axis: .vertical)
              .lineLimit(1...6)
              .accessibilityLabel("Prompt")
            runButton(session)
          }
          Section("Continuation") {
            Text(model.output.isEmpty ? "Nothing yet" : model.output)
              .foregroundStyle(model.output.isEmpty ? .secondary : .primary)
              .textSelection(.enabled)
              .accessibilityLabel("Continuation")
              .accessibilityValue(model.output)
              .accessibilityAddTraits(.updatesFrequently)
          }
          StatisticsSection(statistics: model.statistics, memory: model.memory)
        }
      }
      .navigationTitle("molkv")
      .toolbar {
        ToolbarItem(placement: .primaryAction) {
          Button("Sampling", systemImage: "slider.horizontal.3") { showsSettings = true }
            .accessibilityHint("How tokens are chosen")
        }
      }
      .sheet(isPresented: $showsSettings) { SamplingScreen(settings: model.settings) }
      .problem($model.alert)
    }
  }

  @ViewBuilder private func runButton(_ session: MolkvSession) -> some View {
    if model.isRunning {
      Button("Stop", systemImage: "stop.fill", role: .destructive) { model.stop() }
        .accessibilityHint("Ends before the next token")
    } else {
      Button("Continue the text", systemImage: "play.fill") {
        Task { await model.run(on: session) }
      }
      .disabled(!model.canRun)
      .accessibilityHint("Generates text after the prompt")
    }
  }
}

/// Live figures of the current text.
struct StatisticsSection: View {
  let statistics: SessionStatistics
  let memory: ProcessMemory?

  var body: some View {
    Section("Statistics") {
      figure("First token", Figures.milliseconds(statistics.timeToFirstToken))
      figure("Prefill", Figures.rate(statistics.prefillTokensPerSecond))
      figure("Decode", Figures.rate(statistics.decodeTokensPerSecond))
      figure("Tokens", "\(statistics.prefillTokens) + \(statistics.decodeTokens)")
      figure("Rows read", "\(statistics.rowsRead)")
      figure("Bytes read", Figures.bytes(statistics.bytesRead))
      figure("Lookup", Figures.milliseconds(statistics.lookupSeconds))
      figure("Expert window", Figures.bytes(UInt64(statistics.windowBytes)))
      if let memory {
        figure("Memory", Figures.bytes(memory.used))
        if let available = memory.available {
          figure("Memory left", Figures.bytes(available))
        }
      }
    }
  }

  private func figure(_ name: String, _ value: String) -> some View {
    LabeledContent(name) { Text(value).monospacedDigit() }
      .accessibilityElement(children: .combine)
  }
}

/// How tokens are chosen.
struct SamplingScreen: View {
  @Bindable var settings: SamplingSettings
  @Environment(\.dismiss) private var dismiss

  var body: some View {
    NavigationStack {
      Form {
        Section {
          Toggle("Always the best token", isOn: $settings.isGreedy)
          Stepper(
            "At most \(settings.maxNewTokens) tokens", value: $settings.maxNewTokens, in: 1...4096,
            step: 16)
        }
        if !settings.isGreedy {
          Section("Sampling") {
            slider("Temperature", $settings.temperature, 0...2)
            Stepper(
              settings.topK == 0 ? "Top k: all" : "Top k: \(settings.topK)",
              value: $settings.topK, in: 0...1000)
            slider("Top p", $settings.topP, 0.01...1)
            slider("Min p", $settings.minP, 0...1)
            TextField("Seed, or another one each time", text: $settings.seed)
              .keyboardType(.numberPad)
              .accessibilityLabel("Seed")
          }
        }
      }
      .navigationTitle("Sampling")
      .toolbar {
        ToolbarItem(placement: .confirmationAction) { Button("Done") { dismiss() } }
      }
    }
  }

  private func slider(_ name: String, _ value: Binding<Double>, _ range: ClosedRange<Double>)
    -> some View
  {
    VStack(alignment: .leading) {
      LabeledContent(name) { Text(Figures.scientific(value.wrappedValue)).monospacedDigit() }
      Slider(value: value, in: range)
        .accessibilityLabel(name)
        .accessibilityValue(Figures.scientific(value.wrappedValue))
    }
  }
}
