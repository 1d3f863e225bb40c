package ai.molkv.demo

import ai.molkv.ParityVerdict
import android.os.Bundle

/** Whether this device computes what the exporter computed. */
class ParityActivity : DemoActivity(R.layout.parity) {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        onClick(R.id.run_parity) { model.checkParity() }
        onClick(R.id.stop) { model.stop() }
    }

    override fun show(state: DemoState) {
        text(R.id.message).text = state.message
        text(R.id.results).text =
            state.results.joinToString("\n") { result ->
                val verdict =
                    when (result.verdict) {
                        ParityVerdict.PASSED -> "pass"
                        ParityVerdict.FAILED -> "FAIL"
                        ParityVerdict.NOT_COMPARABLE -> "not comparable"
                    }
                "$verdict: ${result.case}, ${result.what}: ${result.detail}"
            }
        enable(R.id.run_parity, !state.busy && state.bundle.isNotEmpty())
        enable(R.id.stop, state.busy)
    }
}
