package android.content;

import android.net.Uri;

public class Intent {
  public static final String ACTION_OPEN_DOCUMENT_TREE = "android.intent.action.OPEN_DOCUMENT_TREE";
  public final String action;
  public final Class<?> target;
  private Uri data;

  public Intent(String action) {
    this.action = action;
    this.target = null;
  }
  public Intent(Context context, Class<?> target) {
    this.action = null;
    this.target = target;
  }
  public Intent setData(Uri data) {
    this.data = data;
    return this;
  }
  public Uri getData() { return data; }
}
