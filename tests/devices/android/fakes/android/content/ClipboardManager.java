package android.content;

public class ClipboardManager {
  public ClipData fakeClip;

  public void setPrimaryClip(ClipData clip) { fakeClip = clip; }
}
